"""The options that every runner of the pipeline takes: read, checked and explained without loading TFX."""

import argparse
import hashlib
from pathlib import Path

from model import default_model
from model import options as training
from model.card import CARD, CardError, parse_card, read_card
from model.options import OptionsError
from pipeline import registry, storage
from pipeline.collections import JobError
from tfx_pipeline import thresholds as limits
from tfx_pipeline.thresholds import ThresholdsError

SCHEMA = Path(__file__).with_name("schema.pbtxt")
LATEST, SHIPPED, NONE = "latest", "shipped", "none"

USAGE = 2  # exit code after a mistake, which is said in one line
MISTAKES = (JobError, ThresholdsError, OptionsError, CardError, registry.RegistryError)


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are one line each."""

    def __init__(self, **more):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **more)

    def error(self, message: str):
        self.exit(USAGE, f"{self.prog}: {message} (--help explains)\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options, training's among them."""
    gates = parser.add_argument_group("gates")
    gates.add_argument(
        "--schema", default=str(SCHEMA), metavar="FILE", help="what data must be (%(default)s)"
    )
    gates.add_argument(
        "--thresholds", default=str(limits.DEFAULT), metavar="FILE", help="of all gates (%(default)s)"
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--side", type=int, default=192, metavar="PX", help="of Lab training pictures (%(default)s)"
    )
    data.add_argument(
        "--min_side", type=int, default=128, metavar="PX", help="drop smaller pictures (%(default)s)"
    )
    data.add_argument(
        "--shares",
        type=float,
        nargs=3,
        default=(0.8, 0.1, 0.1),
        metavar="X",
        help="of training, validation and test pictures (default: 0.8 0.1 0.1)",
    )
    train = parser.add_argument_group("training")
    train.add_argument(
        "--warm",
        default=LATEST,
        metavar="M",
        help="start from the pushed model in use, or the shipped one while there is none (latest, the default); "
        "the shipped one (shipped); nothing (none), as another architecture must; or the folder of an exported model",
    )
    training.add_arguments(train)
    card = parser.add_argument_group("model card")
    card.add_argument("--name", default="fusion", help="of the model (default: %(default)s)")
    card.add_argument(
        "--terms", metavar="FILE", help="the data and its terms, for the card and a licence note"
    )
    parser.add_argument(
        "--beam",
        default="",
        metavar="ARGS",
        help="options of Beam in one string, such as '--runner=FlinkRunner'",
    )


def settings(
    arguments: argparse.Namespace,
    *,
    manifests: str,
    pushed: str,
    checkpoints: str,
    schema: str,
    offline: bool = False,
    **more,
):
    """The options as `tfx_pipeline.pipeline.Settings` and their Thresholds, checked. Loads TFX.

    Args:
        schema: where the run finds the schema; see `schema_uri`.
        offline: leave the pushed folder alone.
        more: further fields of Settings.

    Raises one of `MISTAKES`, in one line each, where an option makes no sense.
    """
    thresholds = limits.read(arguments.thresholds)
    options = training.from_arguments(arguments)
    for name in ("side", "min_side"):
        if not 16 <= getattr(arguments, name) <= 4096:
            raise JobError(f"--{name} must be between 16 and 4096 pixels, got {getattr(arguments, name)}")
    if min(arguments.shares) <= 0:
        raise JobError("--shares: each of the three must be positive, or its gate has nothing to look at")
    if options.network == "gan" and arguments.warm != NONE:
        raise OptionsError("a GAN starts from no model: give --warm none")
    if options.teacher:
        raise OptionsError("a pipeline has no teacher: distil with model.train, and give --warm the result")
    terms = _terms(arguments.terms)
    warm, warm_sha256 = _warm(arguments.warm, offline)

    from model import objectives
    from pipeline.ingest import Ingestion
    from tfx_pipeline.pipeline import Settings

    objectives.check(options)
    _check_schema(arguments.schema, thresholds)
    total = sum(arguments.shares)
    return Settings(
        manifests=manifests,
        pushed=pushed,
        checkpoints=checkpoints,
        schema=schema,
        thresholds=Path(arguments.thresholds).read_text(encoding="utf-8"),
        ingestion=Ingestion(
            side=max(256, arguments.side),
            min_side=arguments.min_side,
            shares=tuple(share / total for share in arguments.shares),
        ),
        side=arguments.side,
        options=options,
        warm=warm,
        warm_sha256=warm_sha256,
        name=arguments.name,
        state="" if offline else state(pushed),
        **({} if terms is None else {"terms": terms}),
        **more,
    ), thresholds


def schema_uri(file: str, root: str) -> str:
    """Where below the root a run finds the schema of a file: named by its content, which TFX does not look at.

    Raises JobError where there is no such file.
    """
    try:
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError as error:
        raise JobError(f"cannot read --schema {file}: {error.strerror}") from None
    return storage.join(root, "schemas", f"{digest[:16]}.pbtxt")


def read_schema(file: str | Path):
    """The `Schema` in a text file. Raises JobError where it is none."""
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    try:
        return text_format.Parse(Path(file).read_bytes(), schema_pb2.Schema())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise JobError(f"--schema {file} is no schema: {error}") from None


def _check_schema(file: str, thresholds: limits.Thresholds) -> None:
    known = {feature.name for feature in read_schema(file).feature}
    if unknown := {*thresholds.drift, *thresholds.skew} - known:
        raise JobError(f"the thresholds compare {min(unknown)}, which is no feature of --schema {file}")


def state(pushed: str) -> str:
    """What changes when the pushed models' folder does: version and weights of the one in use."""
    if not storage.is_folder(pushed) or not registry.versions(pushed):
        return "nothing pushed"
    newest = registry.latest(pushed)
    return f"{newest.version} {newest.card.weights_sha256}"


def _terms(file: str | None) -> str | None:
    try:
        return None if file is None else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"cannot read --terms {file}: {error}") from None


def _warm(model: str, offline: bool) -> tuple[str, str]:
    """The folder of the model to start from, and the digest of its weights; a gs:// one is not read `offline`."""
    if model in (LATEST, NONE):
        return model, ""
    if model == SHIPPED:
        folder = default_model()
    elif offline and storage.is_gcs(model):
        return storage.normalize(model), ""
    else:
        folder = registry.resolve(storage.normalize(model))
    try:
        if storage.is_gcs(folder):
            file = storage.join(folder, CARD)
            return folder, parse_card(storage.read(file), file).weights_sha256
        return folder, read_card(folder).weights_sha256
    except (CardError, OSError) as error:
        raise JobError(f"--warm: {error}") from None
