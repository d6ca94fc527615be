"""Options of all runners of the pipeline. They are read, checked and explained without loading TFX."""

import argparse
import hashlib
from pathlib import Path

from model import default_model
from model.card import CARD, CardError, parse_card, read_card
from model.training import options as training
from model.training.options import OptionsError
from pipeline import storage
from pipeline.batch import registry
from pipeline.errors import JobError
from tfx_pipeline import thresholds as limits
from tfx_pipeline.settings import LATEST, NONE, SHIPPED
from tfx_pipeline.thresholds import ThresholdsError

SCHEMA = Path(__file__).with_name("schema.pbtxt")

USAGE = 2  # exit code after a user's mistake
USER_ERRORS = (JobError, ThresholdsError, OptionsError, CardError, registry.RegistryError)


class Parser(argparse.ArgumentParser):
    """A command line that reports each mistake in one line."""

    def __init__(self, **more):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **more)

    def error(self, message: str):
        self.exit(USAGE, f"{self.prog}: {message} (--help explains)\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options, including those of the training."""
    gates = parser.add_argument_group("gates")
    gates.add_argument(
        "--schema", default=str(SCHEMA), metavar="FILE", help="schema of the data (%(default)s)"
    )
    gates.add_argument(
        "--thresholds",
        default=str(limits.DEFAULT),
        metavar="FILE",
        help="thresholds of all gates (%(default)s)",
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--side", type=int, default=192, metavar="PX", help="size of Lab training pictures (%(default)s)"
    )
    data.add_argument(
        "--min_side", type=int, default=128, metavar="PX", help="shortest side of a picture (%(default)s)"
    )
    data.add_argument(
        "--shares",
        type=float,
        nargs=3,
        default=(0.8, 0.1, 0.1),
        metavar="X",
        help="shares of training, validation and test pictures (default: 0.8 0.1 0.1)",
    )
    train = parser.add_argument_group("training")
    train.add_argument(
        "--warm",
        default=LATEST,
        metavar="M",
        help="model to start from: the current pushed model, or the shipped model if nothing was pushed (latest, the "
        "default); the shipped model (shipped); none, which another architecture needs; or the folder of an exported "
        "model",
    )
    training.add_arguments(train)
    card = parser.add_argument_group("model card")
    card.add_argument("--name", default="fusion", help="name of the model (default: %(default)s)")
    card.add_argument(
        "--terms", metavar="FILE", help="training data and terms of use, for the card and a licence note"
    )
    parser.add_argument(
        "--beam",
        default="",
        metavar="ARGS",
        help="options of Beam as one string, such as '--runner=FlinkRunner'",
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
    """Checks the options. Returns them as `tfx_pipeline.settings.Settings`, and the Thresholds.

    Args:
        arguments: of the command line.
        manifests, pushed, checkpoints: as in Settings.
        schema: URI of the schema for the run; see `schema_uri`.
        offline: do not read the pushed folder.
        more: other fields of Settings.

    Raises:
        One of `USER_ERRORS`: an option is wrong; the message is one line.
    """
    thresholds = limits.read(arguments.thresholds)
    options = training.from_arguments(arguments)
    for name in ("side", "min_side"):
        if not 16 <= getattr(arguments, name) <= 4096:
            raise JobError(f"--{name} must be between 16 and 4096 pixels, got {getattr(arguments, name)}")
    if min(arguments.shares) <= 0:
        raise JobError("--shares: all three must be positive, because the gates need pictures of every split")
    if options.network == "gan" and arguments.warm != NONE:
        raise OptionsError("a GAN cannot start from a model: give --warm none")
    if options.teacher:
        raise OptionsError(
            "a pipeline has no teacher: distil with model.train, and name the result with --warm"
        )
    terms = _terms(arguments.terms)
    warm, warm_sha256 = _warm(arguments.warm, offline)

    from model.training import objectives
    from pipeline.photographs.settings import Ingestion
    from tfx_pipeline.settings import Settings

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
        terms=terms or Settings.terms,
        **more,
    ), thresholds


def schema_uri(file: str, root: str) -> str:
    """URI below the root at which a run finds a schema. Its name depends on its content, because TFX compares names.

    Raises JobError if the file cannot be read.
    """
    try:
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError as error:
        raise JobError(f"cannot read --schema {file}: {error.strerror}") from None
    return storage.join(root, "schemas", f"{digest[:16]}.pbtxt")


def read_schema(file: str | Path):
    """Reads a `Schema` from a text file. Raises JobError if it is not a schema."""
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    try:
        return text_format.Parse(Path(file).read_bytes(), schema_pb2.Schema())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise JobError(f"--schema {file} is not a schema: {error}") from None


def _check_schema(file: str, thresholds: limits.Thresholds) -> None:
    known = {feature.name for feature in read_schema(file).feature}
    if unknown := {*thresholds.drift, *thresholds.skew} - known:
        raise JobError(f"the thresholds compare {min(unknown)}, which is not a feature in --schema {file}")


def state(pushed: str) -> str:
    """Version and weights of the current pushed model: what changes after a push."""
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
    """Folder of the model to start from, and the digest of its weights. If `offline`, a gs:// model is not read."""
    if model in (LATEST, NONE):
        return model, ""
    if model == SHIPPED:
        folder = default_model()
    elif offline and storage.is_cloud(model):
        return storage.normalize(model), ""
    else:
        folder = registry.resolve(storage.normalize(model))
    try:
        if storage.is_cloud(folder):
            file = storage.join(folder, CARD)
            return folder, parse_card(storage.read(file), file).weights_sha256
        return folder, read_card(folder).weights_sha256
    except (CardError, OSError) as error:
        raise JobError(f"--warm: {error}") from None
