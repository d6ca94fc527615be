"""Modules of the networks from lightness to chroma, by name; see `model.networks`."""

from model.networks import alpha, attention_unet, beta, classification, fusion, fusion_small, unet

GENERATORS = {
    "alpha": alpha,
    "beta": beta,
    "fusion": fusion,
    "fusion_small": fusion_small,
    "classification": classification,
    "unet": unet,
    "attention_unet": attention_unet,
}
