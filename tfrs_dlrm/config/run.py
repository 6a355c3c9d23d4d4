"""The description of a run: plain dataclasses, checked against each other before any work begins.

A recipe in `configs/` returns a `RunConfig`; `--config.train.batch_size=8192` changes one field of it. Each default
lives here and nowhere else. (Flags are parsed by the types of the fields, so these must not be strings: no import of
annotations from __future__.)
"""

import dataclasses
from typing import Any

from tfrs_dlrm.config.field_checks import check_at_least, check_choice, check_types, refuse
from tfrs_dlrm.config.models.base import ModelConfig
from tfrs_dlrm.config.models.deep_models import DLRMConfig
from tfrs_dlrm.config.models.registry import model_config
from tfrs_dlrm.config.search import SearchConfig
from tfrs_dlrm.distribute.tf_config import is_host_port

DENSE_OPTIMIZERS = ("adagrad", "adam", "sgd")
EMBEDDING_OPTIMIZERS = ("rowwise_adagrad", "adagrad", "lazy_adam", "ftrl", "sgd")
# Those with an initial accumulator.
ACCUMULATING = ("rowwise_adagrad", "adagrad")
AUTO = "auto"
# In a field of `FROM_DATA_FIELDS`, leaves the value to the data; see `tfrs_dlrm.config.fitted`. In texts it is `AUTO`.
FROM_DATA = -1
FROM_DATA_FIELDS = (
    "train.batch_size",
    "train.epochs",
    "train.eval_every_steps",
    "train.monitor",
    "train.patience",
    "train.center_rows",
    "optimizer.learning_rate",
    "optimizer.embedding_learning_rate",
    "optimizer.embedding_accumulator",
    "model.dropout",
)
NEW_VALUES = ("off", "admit")
_PRECISIONS = ("float32", "bfloat16")
# The metrics that can choose the best evaluation; the empty one stands for that of the label's task.
MONITORS = ("", "log_loss", "auc_minus_log_loss", "auc_minus_normalized_entropy", "ndcg")


def automatic_row_optimizer(on_hardware: bool) -> str:
    """Returns the row optimizer that `auto` stands for: the one with the smallest slots that adapts its steps.

    Args:
      on_hardware: whether tables are on TPU embedding hardware.
    """
    return "adagrad" if on_hardware else "rowwise_adagrad"


@dataclasses.dataclass
class DataConfig:
    """Where the examples come from.

    Attributes:
      source: the address of a stream of raw rows to train on, kafka://HOST:PORT/TOPIC?...; see docs/guides/streams.md.
        Then `path` says how they are encoded.
      path: the prepared directory. If it is missing, `raw_train` or `synthetic_rows` says how to make it.
      schema: the JSON file that describes the raw logs.
      raw_train: paths and glob patterns of raw training logs, separated by commas.
      raw_eval: paths and glob patterns of raw evaluation logs.
      eval_fraction: the share of the training logs to evaluate on, if `raw_eval` is empty.
      bad_rows: how malformed raw rows are handled: `error` or `quarantine`.
      synthetic_rows: draws this many training rows from a planted model, in place of raw logs.
      synthetic_eval_rows: the number of evaluation rows drawn from the planted model.
      shuffle_rows: how many rows are shuffled at a time.
      service: grpc://HOST:PORT of input workers that read and shuffle training data, see docs/guides/input-service.md.
    """

    path: str = ""
    schema: str = ""
    raw_train: str = ""
    raw_eval: str = ""
    eval_fraction: float = 0.0
    bad_rows: str = "error"
    synthetic_rows: int = 0
    synthetic_eval_rows: int = 100_000
    shuffle_rows: int = 1 << 19
    service: str = ""
    source: str = ""

    def of_prepared(self, path: str) -> "DataConfig":
        """Returns the configuration of a prepared directory: none of the fields that make one has a value.

        Args:
          path: the prepared directory.
        """
        return dataclasses.replace(
            self, path=path, schema="", raw_train="", raw_eval="", eval_fraction=0.0, synthetic_rows=0
        )


@dataclasses.dataclass
class StreamConfig:
    """How a run follows a stream. Without `data.source` it has no effect, and `new_values` must be `off`.

    Attributes:
      window_rows: how many rows are evaluated, then trained on, at a time.
      window_seconds: a window ends after this time, even if it has fewer rows.
      checkpoint_every_windows: a killed run resumes from the last.
      export_to: the directory of the served model's versions.
      export_every_windows: how many windows lie between new versions, a multiple of `checkpoint_every_windows`; 0 is
        never.
      export_keep: how many of the newest versions are kept.
      stop_at_end: ends the run after the rows that the stream had when the run began.
      idle_seconds: ends the run after this time without any row; 0 is never.
      retry_seconds: ends the run after this time without an answer from a broker.
      malformed_in_a_row: ends the run if a whole window, and this many messages in a row, are malformed: the stream
        has another schema. 0 is never.
      new_values: of a vocabulary with a `max_size`: `off` leaves its values as they were prepared; `admit` gives new
        values rows, see docs/guides/streams.md.
      admit_after: how often a value is seen before it gets a row.
      admit_within: within how many rows; also the half-life of the counts by which values give up their rows.
      admit_candidates: of how many values without a row each table keeps count at most.
    """

    window_rows: int = 16_384
    window_seconds: float = 60.0
    checkpoint_every_windows: int = 10
    export_to: str = ""
    export_every_windows: int = 0
    export_keep: int = 3
    stop_at_end: bool = False
    idle_seconds: float = 0.0
    retry_seconds: float = 600.0
    malformed_in_a_row: int = 10
    new_values: str = "off"
    admit_after: int = 5
    admit_within: int = 1_000_000
    admit_candidates: int = 100_000


@dataclasses.dataclass
class OptimizerConfig:
    """The optimizers and their learning rates. -1 leaves the fields of `FROM_DATA_FIELDS` to the data.

    The learning rates rise linearly over `warmup_steps`, hold, and from step `decay_start_step` fall over `decay_steps`
    as a polynomial of degree `decay_power` to `end_learning_rate`. With `plateau_factor` they are also cut when
    evaluations stop improving.

    Attributes:
      dense: the optimizer of the MLPs: `adagrad`, `adam` or `sgd`.
      learning_rate: the learning rate of the MLPs.
      dense_accumulator: for `adagrad`, the initial sums of squared gradients of the MLPs: Keras has 0.1, PyTorch 0.
      embedding: the optimizer of the tables: `rowwise_adagrad`, `adagrad`, `lazy_adam`, `ftrl` or `sgd`. `auto` is
        `rowwise_adagrad`, or `adagrad` if tables are on TPU embedding hardware, which has no row-wise one.
      embedding_learning_rate: the learning rate of the tables; 0 is the same as `learning_rate`.
      embedding_accumulator: for `rowwise_adagrad` and `adagrad`, the initial sum of squared gradients of rows. The
        gradients are of the mean loss of a batch: for equal first steps it falls with the square of the batch size.
      embedding_l2: L2 on the rows that a batch looks up, see `RowOptimizer`.
      warmup_steps: 0 for none.
      decay_start_step: counted from the first step.
      decay_steps: 0 for no decay.
      decay_power: 2 in the DLRM reference.
      end_learning_rate: the lowest rate, for MLPs and tables; neither decay nor cuts go below it.
      embedding_per_table: other optimizers for some tables, as in `user=lazy_adam,site=ftrl`.
      embedding_weight_decay: decoupled weight decay of the rows that a batch looks up, see `RowOptimizer`.
      embedding_l1: L1, for `ftrl` only.
      plateau_factor: multiplies the rates after every `plateau_patience` evaluations in a row that are not the best so
        far, by `train.monitor`; 1 never changes them.
      plateau_patience: 1 cuts after each such evaluation.
    """

    dense: str = "adam"
    learning_rate: float = 0.001
    embedding: str = AUTO
    embedding_learning_rate: float = 0.02
    embedding_l2: float = 0.0
    warmup_steps: int = 0
    decay_start_step: int = 0
    decay_steps: int = 0
    decay_power: float = 2.0
    end_learning_rate: float = 0.0
    embedding_per_table: str = ""
    embedding_weight_decay: float = 0.0
    embedding_l1: float = 0.0
    plateau_factor: float = 1.0
    plateau_patience: int = 1
    dense_accumulator: float = 0.1
    embedding_accumulator: float = 0.0

    def resolved(self, on_hardware: bool) -> "OptimizerConfig":
        """Returns the configuration with the optimizer that `auto` stands for.

        Args:
          on_hardware: whether tables are on TPU embedding hardware.
        """
        return (
            dataclasses.replace(self, embedding=automatic_row_optimizer(on_hardware))
            if self.embedding == AUTO
            else self
        )

    @property
    def row_optimizers(self) -> str:
        """The optimizers of the tables as text, such as `adagrad and site=ftrl`."""
        return " and ".join(text for text in (self.embedding, self.embedding_per_table) if text)

    def per_table(self) -> dict[str, str]:
        """Returns `embedding_per_table` as a dictionary.

        Raises:
          ValueError: it does not have the form TABLE=OPTIMIZER,... .
        """
        pairs = [item.partition("=") for item in self.embedding_per_table.split(",") if item.strip()]
        out = {table.strip(): optimizer.strip() for table, _, optimizer in pairs}
        for table, optimizer in out.items():
            if not table or optimizer not in EMBEDDING_OPTIMIZERS or len(out) < len(pairs):
                wanted = (
                    f"TABLE=OPTIMIZER,... is needed, each table once, with one of {', '.join(EMBEDDING_OPTIMIZERS)}"
                )
                refuse("optimizer.embedding_per_table", self.embedding_per_table, wanted)
        return out


@dataclasses.dataclass
class TrainConfig:
    """How long a run trains, and what it does on the way. -1 leaves the fields of `FROM_DATA_FIELDS` to the data.

    Attributes:
      batch_size: examples per step, summed over replicas.
      eval_batch_size: examples per evaluation step, summed over replicas; it changes no result.
      epochs: passes over the training set; 1.5 is one and a half.
      steps: the number of steps; 0 leaves the length to `epochs`.
      eval_every_steps: evaluates and writes a checkpoint; 0 is after each epoch.
      target_auc: stops once the evaluation AUC is at least this; 0 is never. Not for a regression.
      monitor: the metric that chooses the best evaluation: `log_loss`; `auc_minus_log_loss`;
        `auc_minus_normalized_entropy`, whose log loss is relative to that of the share of 1s; `ndcg`, the NDCG@10
        within the groups of the schema; or empty for AUC (for a regression, the RMSE). `auto` leaves it to the data.
      patience: stops after this many evaluations in a row that are not the best so far; 0 is never.
      center_rows: before each evaluation, or checkpoint if there is no evaluation set, sets the last bias so that
        predictions of this many training rows average to the mean label; 0 leaves it to the optimizer. See
        docs/guides/calibration.md.
      keep_checkpoints: how many of the latest checkpoints to keep, in addition to the best.
      warm_start: the directory of another run of this model, perhaps on other vocabularies, whose weights are taken
        over at the beginning; see `tfrs_dlrm.warm_start`.
      precision: the dtype of MLPs and interactions: `float32` or `bfloat16`. Weights stay float32; the schema says the
        dtype of tables.
      steps_per_execution: steps between two returns to Python.
      seed: for initial weights and the order of examples.
      tensorboard: whether to write event files.
      async_checkpoints: writes checkpoints from a copy of tables and slots while training continues, if the copy takes
        less than half of the free memory; else training waits.
    """

    batch_size: int = 2048
    eval_batch_size: int = 8192
    epochs: float = 1.0
    steps: int = 0
    eval_every_steps: int = 0
    target_auc: float = 0.0
    monitor: str = ""
    patience: int = 0
    center_rows: int = 0
    keep_checkpoints: int = 2
    warm_start: str = ""
    precision: str = "float32"
    steps_per_execution: int = 1
    seed: int = 0
    tensorboard: bool = True
    async_checkpoints: bool = True


@dataclasses.dataclass
class RunConfig:
    """The description of a run."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=DLRMConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    stream: StreamConfig = dataclasses.field(default_factory=StreamConfig)
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)

    def check(self) -> None:
        """Checks each field, and that the fields fit together.

        Raises:
          ValueError: a field is wrong; the message has its name, its value, and the allowed values.
        """
        self.check_types()
        _check_stream(self)
        known = with_defaults(self)
        _check_data(known.data)
        known.model.check()
        _check_optimizer(known.optimizer)
        _check_train(known.train)
        known.search.check()

    def check_types(self) -> None:
        """Checks that each section is of its class, and each field of its type.

        Raises:
          ValueError: a section or a field is of another type; the message has its name and value.
        """
        kinds = {"data": DataConfig, "model": ModelConfig, "optimizer": OptimizerConfig, "train": TrainConfig}
        for section, kind in (kinds | {"stream": StreamConfig, "search": SearchConfig}).items():
            check_types(section, getattr(self, section), kind)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, as the directory of a run keeps them."""
        plain = dataclasses.asdict(self)
        for section in ("model", "search"):
            plain[section] = {k: list(v) if isinstance(v, tuple) else v for k, v in plain[section].items()}
        return plain

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RunConfig":
        """Reads the result of `to_dict`.

        Raises:
          ValueError: another version wrote it.
        """
        try:
            model, search = _with_tuples(data["model"]), _with_tuples(data.get("search", {}))
            found = cls(
                DataConfig(**data["data"]),
                model_config(model.pop("name", DLRMConfig.name), **model),
                OptimizerConfig(**data["optimizer"]),
                TrainConfig(**data["train"]),
                StreamConfig(**data.get("stream", {})),  # runs of versions that had no streams have none
                SearchConfig(**search),
            )
        except (KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"not the configuration of a run of this version: {e}") from e
        found.check_types()
        return found


def up_to_date(stored: Any) -> Any:
    """Returns the stored result of `RunConfig.to_dict` with the defaults of fields that are newer; else as it is."""
    try:
        return RunConfig.from_dict(stored).to_dict()
    except (TypeError, ValueError):
        return stored


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


def left_to_data(config: RunConfig) -> list[str]:
    """Returns SECTION.FIELD of the fields whose values the data decide."""
    found = []
    for path in FROM_DATA_FIELDS:
        section, _, name = path.partition(".")
        if getattr(getattr(config, section), name, None) in (FROM_DATA, AUTO):
            found.append(path)
    return found


def with_field(config: RunConfig, path: str, value: Any) -> RunConfig:
    """Returns the configuration with another value of SECTION.FIELD."""
    section, _, name = path.partition(".")
    changed: Any = dataclasses.replace(getattr(config, section), **{name: value})
    return dataclasses.replace(config, **{section: changed})


def with_defaults(config: RunConfig) -> RunConfig:
    """Returns the configuration with the default of each field whose value the data decide."""
    for path in left_to_data(config):
        section, _, name = path.partition(".")
        fields = {field.name: field.default for field in dataclasses.fields(getattr(config, section))}
        config = with_field(config, path, fields[name])
    return config


def _check_data(c: DataConfig) -> None:
    if not c.path:
        refuse("data.path", c.path, "name the prepared directory (tfrs-dlrm prepare writes one)")
    if c.raw_train and not c.schema:
        refuse("data.schema", c.schema, "raw_train needs the schema that describes it")
    if c.raw_train and c.synthetic_rows:
        refuse("data.synthetic_rows", c.synthetic_rows, "raw_train is given too; choose one of the two")
    if c.raw_eval and c.eval_fraction:
        refuse("data.eval_fraction", c.eval_fraction, "raw_eval is given too; choose one of the two")
    if not 0 <= c.eval_fraction < 1:
        refuse("data.eval_fraction", c.eval_fraction, "a number in [0, 1) is needed")
    if c.service and not (c.service.startswith("grpc://") and is_host_port(c.service.removeprefix("grpc://"))):
        refuse("data.service", c.service, "grpc://HOST:PORT is needed, as tfrs-dlrm input-service prints it")
    check_choice("data.bad_rows", c.bad_rows, ("error", "quarantine"))
    check_at_least("data", c, synthetic_rows=0, synthetic_eval_rows=1, shuffle_rows=1)


def _check_optimizer(c: OptimizerConfig) -> None:
    check_choice("optimizer.dense", c.dense, DENSE_OPTIMIZERS)
    check_choice("optimizer.embedding", c.embedding, (AUTO, *EMBEDDING_OPTIMIZERS))
    check_at_least("optimizer", c, learning_rate=0, embedding_learning_rate=0, embedding_l2=0, end_learning_rate=0)
    c.per_table()
    check_at_least("optimizer", c, embedding_weight_decay=0, embedding_l1=0, dense_accumulator=0)
    check_at_least("optimizer", c, embedding_accumulator=0)
    chosen = {c.embedding, *c.per_table().values()}
    if c.embedding_accumulator and not chosen & {AUTO, *ACCUMULATING}:
        refuse("optimizer.embedding_accumulator", c.embedding_accumulator, f"only {' and '.join(ACCUMULATING)} have it")
    if c.embedding_l1 and "ftrl" not in chosen:
        refuse("optimizer.embedding_l1", c.embedding_l1, "only ftrl has it")
    if c.embedding_weight_decay and "ftrl" in chosen:
        refuse("optimizer.embedding_weight_decay", c.embedding_weight_decay, "ftrl has none; use embedding_l2")
    check_at_least("optimizer", c, warmup_steps=0, decay_start_step=0, decay_steps=0, decay_power=0)
    if c.decay_steps and c.decay_start_step < c.warmup_steps:
        refuse("optimizer.decay_start_step", c.decay_start_step, f"the warmup takes {c.warmup_steps} steps")
    if c.decay_start_step and not c.decay_steps:
        refuse("optimizer.decay_start_step", c.decay_start_step, "it has no effect without decay_steps")
    if not 0 < c.plateau_factor <= 1:
        refuse("optimizer.plateau_factor", c.plateau_factor, "a number in (0, 1] is needed; 1 leaves the rates")
    check_at_least("optimizer", c, plateau_patience=1)
    if c.plateau_patience > 1 and c.plateau_factor == 1:
        refuse("optimizer.plateau_patience", c.plateau_patience, "it has no effect without plateau_factor")
    if c.end_learning_rate and not c.decay_steps and c.plateau_factor == 1:
        wanted = "it has no effect without decay_steps or plateau_factor"
        refuse("optimizer.end_learning_rate", c.end_learning_rate, wanted)


def _check_train(c: TrainConfig) -> None:
    check_at_least("train", c, batch_size=1, eval_batch_size=1, keep_checkpoints=1, steps_per_execution=1)
    check_at_least("train", c, epochs=0, steps=0, eval_every_steps=0, patience=0, center_rows=0, seed=0)
    check_choice("train.precision", c.precision, _PRECISIONS)
    if not c.steps and not c.epochs:
        refuse("train.epochs", c.epochs, "either epochs or steps must be above 0")
    if not 0 <= c.target_auc < 1:
        refuse("train.target_auc", c.target_auc, "a number in [0, 1) is needed; 0 is no target")
    if c.monitor not in MONITORS:
        refuse("train.monitor", c.monitor, f"choose one of {', '.join(MONITORS[1:])}, or leave it empty")
    if c.target_auc and c.monitor:
        refuse("train.monitor", c.monitor, "train.target_auc is of the best AUC; leave one of the two out")


def _check_stream(c: RunConfig) -> None:
    source, stream = c.data.source, c.stream
    check_at_least("stream", stream, window_rows=1, checkpoint_every_windows=1, export_every_windows=0, export_keep=1)
    check_at_least("stream", stream, window_seconds=0, idle_seconds=0, retry_seconds=0, malformed_in_a_row=0)
    check_choice("stream.new_values", stream.new_values, NEW_VALUES)
    check_at_least("stream", stream, admit_after=1, admit_within=1, admit_candidates=1)
    if stream.admit_within < stream.admit_after:
        wanted = (
            f"at least stream.admit_after={stream.admit_after} is needed, so that rows of one value each can reach it"
        )
        refuse("stream.admit_within", stream.admit_within, wanted)
    if bool(stream.export_to) != bool(stream.export_every_windows):
        refuse("stream.export_to", stream.export_to, "it goes with stream.export_every_windows; give both or neither")
    if stream.export_every_windows % stream.checkpoint_every_windows:
        wanted = f"a multiple of stream.checkpoint_every_windows={stream.checkpoint_every_windows} is needed"
        refuse("stream.export_every_windows", stream.export_every_windows, wanted)
    if not source:
        if stream.new_values != "off":
            refuse("stream.new_values", stream.new_values, "it needs data.source; on files, see prepare --base")
        return
    if c.search.candidates:
        refuse("search.candidates", c.search.candidates, "a stream has no evaluation set to choose by; leave them out")
    if not source.startswith("kafka://"):
        refuse("data.source", source, "kafka://HOST:PORT/TOPIC is needed; files go into data.raw_train")
    for path in left_to_data(c):
        value = getattr(getattr(c, path.partition(".")[0]), path.partition(".")[2])
        refuse(path, value, "a stream has no rows to count before it begins; give a value, as configs/stream.py does")
    for name in ("target_auc", "patience"):
        if getattr(c.train, name):
            wanted = "a stream has no evaluation set to stop by; see stream.stop_at_end, and configs/stream.py"
            refuse(f"train.{name}", getattr(c.train, name), wanted)
    if c.train.center_rows:
        refuse("train.center_rows", c.train.center_rows, "a stream has no training set to average over; leave it out")
    if c.optimizer.plateau_factor != 1:
        refuse("optimizer.plateau_factor", c.optimizer.plateau_factor, "a stream has no evaluation set to cut rates by")
