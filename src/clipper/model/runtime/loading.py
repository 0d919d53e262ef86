"""Finds and loads the model that a deployment names, and finds out its input type."""

import importlib
import importlib.util
import inspect
import logging
import pickle
import platform
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from clipper.errors import ClipperError, ContainerFailed
from clipper.model.frameworks import scikit_learn
from clipper.model.frameworks.estimator_columns import find_record, names_of
from clipper.model.frameworks.framework import LABEL, LABELS, FrameworkModel, FrameworkSource, chosen_answer
from clipper.model.frameworks.hidden_markov import sequence_model
from clipper.model.frameworks.quick_columns import agrees, quick_pipeline
from clipper.model.frameworks.quick_predict import quick_predict_of
from clipper.model.frameworks.table import as_columns, declared_record, is_alike, matrix
from clipper.model.model import Inputs, LoadedModel
from clipper.model.runtime.annotations import RowClass, by_rows, row_class, wanted
from clipper.values.records import RecordType, ValueType, parse_type
from clipper.values.types import Framework, InputType

log = logging.getLogger("clipper.runtime")

T = TypeVar("T")

# Formats that hold Python objects of any library. Each other framework has a module in ``frameworks/``.
PICKLES = (None, "pickle", "joblib")

# Outputs that a model's ``predict`` returns.
_PLAIN = (None, LABEL, LABELS)

# Objects in pickles that their framework's module serves, because their own predict takes or returns something else.
_SERVED_BY_FRAMEWORK = {("xgboost.core", "Booster"): "xgboost", ("lightgbm.basic", "Booster"): "lightgbm"}


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The place of a model, and the way to load it.

    Attributes:
        artifact: the folder of the unpacked artifact.
        loader: ``file``: ``target`` is a model file or folder in the artifact; ``import``: it is ``module:attribute``,
            looked for in the artifact's ``code/`` first.
        data: a path in the artifact, of the argument of a model's class, or of a framework's second file.
        input_type: the input type as text, if the deployment says it.
        framework: the framework that loads the model; None means a pickle, or code.
        output: the requested outputs, as in ``FrameworkSource``.
        sample_type: the type of the deployment's sample as text, if that is a record: it says what the model does not
            say of its inputs.
        has_gpu, precision: as in ``FrameworkSource``.
    """

    artifact: Path
    loader: Literal["file", "import"]
    target: str
    data: str | None = None
    input_type: str | None = None
    framework: Framework | None = None
    output: str | None = None
    sample_type: str | None = None
    has_gpu: bool = False
    precision: str | None = None

    def of_file(self, path: Path, data: Path | None = None, target: str | None = None) -> FrameworkSource:
        """Return what a framework's module gets of it."""
        said = self.input_type or self.sample_type
        return FrameworkSource(path, data, target, self.output, said, self.has_gpu, self.precision)


def load(source: ModelSource) -> LoadedModel:
    """Load the model. Raises ContainerFailed: its message says why and what to do, its cause has the traceback."""
    code = source.artifact / "code"
    if code.is_dir():
        # Pickles need this, too: they may refer to modules of their author.
        sys.path.insert(0, str(code.resolve()))
    loaded = _load_pickle(source) if source.framework in PICKLES else _load_framework(source)
    chosen = _chosen_type(source, loaded.input_type)
    predict_batch = loaded.predict_batch
    if isinstance(loaded.input_type, RecordType) and chosen != loaded.input_type:
        predict_batch = _converting(source, chosen, loaded.input_type, predict_batch)
    return LoadedModel(
        predict_batch=predict_batch,
        input_type=chosen,
        max_batch=loaded.max_batch,
        runtime=f"python {platform.python_version()}, {loaded.library}",
        output_type=loaded.output_type,
        device=loaded.device or (_device_of_code() if source.has_gpu else ""),
        warning=loaded.warning,
    )


def _device_of_code() -> str:
    """Return the device that code has put weights on; empty if that cannot be seen. Only PyTorch is asked."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized() or not torch.cuda.memory_allocated():
        return ""
    return f"cuda ({torch.cuda.get_device_name()})"


def _load_framework(source: ModelSource) -> FrameworkModel:
    """Load a model with its framework's module, which is the first to import the framework."""
    name = source.framework
    data = None if source.data is None else _inside(source, source.data, "model data")
    if source.loader == "import":
        if data is None:
            raise ContainerFailed(
                f"framework {name} needs the state dict of {source.target}: give its file with --data"
            )
        given = source.of_file(data, target=source.target)
    else:
        path = _inside(source, source.target, "model")
        given = source.of_file(path, data)

    def step() -> FrameworkModel:
        return importlib.import_module(f"clipper.model.frameworks.{name}").load(given)  # type: ignore[no-any-return]

    return _loading(f"{name} model {source.target}", step)


def _load_pickle(source: ModelSource) -> FrameworkModel:
    scikit_learn.quiet()
    found, saved_with = _load_object(source)
    framework = _SERVED_BY_FRAMEWORK.get((type(found).__module__, type(found).__name__))
    if framework is not None:
        module = importlib.import_module(f"clipper.model.frameworks.{framework}")
        model_of: Callable[[Any, FrameworkSource], FrameworkModel] = module.model_of
        given = source.of_file(source.artifact / source.target)
        return _loading(f"{framework} model {source.target}", lambda: model_of(found, given))
    model = sequence_model(found)
    predict_batch, output_type = _served(model, source)
    predict_batch, input_type, warning = _taken(model, predict_batch, source)
    limit = getattr(model, "max_batch", None)
    return FrameworkModel(
        predict_batch=predict_batch,
        input_type=input_type,
        library=_library_text(found, saved_with),
        max_batch=limit if isinstance(limit, int) and limit > 0 else None,
        output_type=output_type,
        warning=warning,
    )


def _load_object(source: ModelSource) -> tuple[Any, str | None]:
    """Return the model; and the version of scikit-learn that it was saved with, if another version is installed."""
    with warnings.catch_warnings(record=True) as caught:
        try:
            if source.loader == "file":
                path = _inside(source, source.target, "model file")
                model = _loading(f"model file {source.target}", lambda: _unpickle(path), _advice_on_file)
            else:
                model = _from_import(source)
        except ContainerFailed as error:
            saved_with = scikit_learn.saved_with(caught)
            if saved_with is None:
                raise
            raise ContainerFailed(
                f"{error}; it was saved with scikit-learn {saved_with}, but this is {scikit_learn.version()}: "
                "use the version that it was saved with"
            ) from error.__cause__
        finally:
            for warning in caught:
                log.warning(
                    "loading %(file)s: %(error)s",
                    {"file": source.target, "error": f"{warning.category.__name__}: {warning.message}"},
                )
    return model, scikit_learn.saved_with(caught)


def _inside(source: ModelSource, name: str, what: str) -> Path:
    path = (source.artifact / name).resolve()
    if not path.exists():
        there = ", ".join(sorted(entry.name for entry in source.artifact.glob("*"))[:20]) or "nothing"
        raise ContainerFailed(f"{what} {name} is not in the artifact, which holds: {there}")
    return path


def _unpickle(path: Path) -> Any:
    # joblib also reads plain pickles. Plain pickle does not read joblib's files.
    try:
        joblib = importlib.import_module("joblib")
    except ModuleNotFoundError:
        if path.suffix == ".joblib":
            raise
        with path.open("rb") as file:
            return pickle.load(file)
    return joblib.load(path)


def _from_import(source: ModelSource) -> Any:
    module_name, _, attribute = source.target.partition(":")
    if not module_name or not attribute:
        raise ContainerFailed(f"target {source.target!r} is malformed: expected module:attribute")
    found = _loading(f"module {module_name}", lambda: importlib.import_module(module_name))
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ContainerFailed(f"module {module_name} does not define {attribute}: check the name")
        found = getattr(found, name)
    return _instance(found, source) if isinstance(found, type) else found


def _instance(model_class: Callable[..., Any], source: ModelSource) -> Any:
    """Make an object of the model's class. The check names the arguments that its author wrote if they do not fit."""
    data = None if source.data is None else str(_inside(source, source.data, "model data"))
    try:
        inspect.signature(model_class).bind(data)
    except ValueError:
        pass  # a class in C may have no signature: making an object will tell
    except TypeError as error:
        raise ContainerFailed(
            f"{source.target} cannot be made with the one argument model_data: {error}. Expected a class with "
            "__init__(self, model_data), where model_data is the path of --data, or None without it: add the argument"
        ) from None
    return _loading(f"{source.target}(model_data={data!r})", lambda: model_class(data))


def _loading(what: str, step: Callable[[], T], advice: Callable[[BaseException], str] = lambda _: "") -> T:
    """Run code of the user. Any error of the code becomes a ContainerFailed with a message of a line."""
    try:
        return step()
    except ContainerFailed:
        raise
    except ModuleNotFoundError as error:
        raise ContainerFailed(
            f"{what} needs the module {error.name!r}, which {sys.executable} does not have: name its package in "
            "--requirements, or give a Python that has it with --python; to ship a module of your own, deploy "
            "module:attribute from its folder"
        ) from error
    except MemoryError as error:
        raise ContainerFailed(f"{what} does not fit into the container's memory: raise --memory") from error
    except (Exception, SystemExit) as error:  # a user's code may raise anything, and may call sys.exit
        text = " ".join("".join(traceback.format_exception_only(type(error), error)).split())
        raise ContainerFailed(f"{what} cannot be loaded: {text}{advice(error)}") from error


def _advice_on_file(error: BaseException) -> str:
    if isinstance(error, AttributeError) and "__main__" in str(error):
        return ": it was saved in the script that defines its classes; move them to a module and ship that in code/"
    # A wrong byte can make the reader of pickles raise any error.
    return (
        ": it is damaged, is not a pickle, or was saved with other versions of its libraries; save it again with these"
    )


def _served(model: Any, source: ModelSource) -> tuple[Callable[[Inputs], object], ValueType | None]:
    """Return the function that answers a batch, and the type of the outputs if that is known."""
    own = getattr(model, "predict_batch", None)
    is_plain = source.output in _PLAIN
    # The quick function takes no frame. If the model needs one, so do its probabilities.
    quick = quick_predict_of(model) if is_plain or names_of(model) is None else None
    methods = (own, quick, getattr(model, "predict", None), model)
    predict = next((method for method in methods if callable(method)), None)
    if predict is not None:
        _check_answers_at_once(predict, source)
    if predict is not None and is_plain:
        said = getattr(model, "output_type", None)
        return predict, _parsed(said, source, "output") if isinstance(said, str) else None
    answers = scikit_learn.answers_of(model, predict)
    if not answers:
        raise ContainerFailed(
            f"{source.target} is of type {type(model).__name__}: "
            "expected an object with predict_batch or predict, or a function over a batch"
        )
    given = FrameworkSource(Path(source.target), output=source.output)
    names, answer = chosen_answer(given, answers)
    return answer, scikit_learn.output_type_of(model, names)


def _check_answers_at_once(predict: Callable[..., object], source: ModelSource) -> None:
    """Refuse functions that answer in parts, or later."""
    code = predict if inspect.isroutine(predict) else type(predict).__call__
    if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
        raise ContainerFailed(
            f"{source.target} yields its outputs in parts, as decoupled models of Triton do, and a query has one "
            "answer: collect the parts, and return a sequence with an output for each input"
        )
    if inspect.iscoroutinefunction(code):
        raise ContainerFailed(
            f"{source.target} is a coroutine: expected a function that returns the outputs; call asyncio.run in it"
        )


def _taken(
    model: Any, predict_batch: Callable[[Inputs], object], source: ModelSource
) -> tuple[Callable[[Inputs], object], ValueType | None, str]:
    """Return a model as a function of inputs, their type, or None if the model does not say it, and a warning."""
    if (names := names_of(model)) is not None:
        return _estimator(model, names, predict_batch, source)
    known = scikit_learn.input_type_of(model)
    said = _said_type(model, source)
    # A type that is no record is declared by those that send it, whatever the code is annotated with.
    form = None if isinstance(said, InputType) else wanted(predict_batch)
    if isinstance(form, RowClass):
        return by_rows(predict_batch, form), form.record, ""
    # An estimator without names was fitted on a DataFrame nevertheless if its rows have names.
    if form == "frame" or (isinstance(said, RecordType) and hasattr(model, "get_params")):
        if said is None:
            raise ContainerFailed(
                f"{source.target} takes a DataFrame, and does not say its columns: deploy it with --sample @FILE, a "
                "CSV, JSON lines or Parquet file with a row or more, or with --input-type 'age: float64, job: string'"
            )
        assert isinstance(said, RecordType)
        return _with_frames(predict_batch, said), said, ""
    return predict_batch, known if known is not None else said, ""


def _said_type(model: Any, source: ModelSource) -> ValueType | None:
    """Return the type that the deployment declares, the object says, or the sample has, in this order."""
    if source.input_type is not None:
        return _parsed(source.input_type, source)
    said = getattr(model, "input_type", None)
    if said is not None:
        rows = row_class(said)
        return rows.record if rows is not None else _parsed(said, source)
    return _parsed(source.sample_type, source) if source.sample_type is not None else None


def _estimator(
    model: Any, names: Sequence[str], predict_batch: Callable[[Inputs], object], source: ModelSource
) -> tuple[Callable[[Inputs], object], ValueType | None, str]:
    """Return an estimator that was fitted on named columns as a function of records, their type, and a warning."""
    listed = scikit_learn.input_type_of(model)
    declared = None if source.input_type is None else _parsed(source.input_type, source)
    if importlib.util.find_spec("pandas") is None:  # the estimator was fitted on a frame of another library
        return predict_batch, listed, ""
    if isinstance(declared, InputType) and scikit_learn.takes_lists(model):
        return predict_batch, listed, ""
    takes_frames = source.output not in _PLAIN or getattr(predict_batch, "__self__", None) is model
    ask = predict_batch if takes_frames else model.predict
    record, warning = find_record(
        model,
        names,
        declared_record(source.input_type),
        declared_record(source.sample_type),
        lambda of_type, columns: _with_frames(ask, of_type)(columns),
    )
    if takes_frames:
        return _quick_or(_with_frames(predict_batch, record), model, record, source), record, warning
    # The quick function leaves out scikit-learn's checks, and only these look at the names.
    read = matrix(record, np.float64)
    return lambda inputs: predict_batch(read(inputs)), record, warning


def _quick_or(
    by_frames: Callable[[Any], object], model: Any, record: RecordType, source: ModelSource
) -> Callable[[Any], object]:
    """Return a function that answers as ``by_frames`` without a DataFrame if that can be; else ``by_frames``."""
    pipeline = quick_pipeline(model, record)
    if pipeline is None:
        return by_frames
    quick, _ = _served(pipeline, source)
    if not agrees(quick, by_frames, pipeline, record):
        return by_frames

    def predict(inputs: Any) -> object:
        try:
            return quick(inputs)
        except Exception:  # noqa: BLE001  scikit-learn's own way has the error, or the answer
            return by_frames(inputs)

    return predict


def _with_frames(predict_batch: Callable[[Any], object], record: RecordType) -> Callable[[Inputs], object]:
    # Only an environment whose model takes DataFrames has pandas.
    frames = _loading("a table", lambda: importlib.import_module("clipper.model.frameworks.frames"))
    frame = frames.framing(record)
    return lambda inputs: predict_batch(frame(inputs))


def _converting(
    source: ModelSource, chosen: ValueType, known: RecordType, predict_batch: Callable[[Inputs], object]
) -> Callable[[Inputs], object]:
    """Return a function of inputs of the declared type."""
    convert = as_columns(chosen, known)
    if convert is None:
        raise ContainerFailed(f"input type {chosen} does not suit {source.target}, which takes {known}")
    return lambda inputs: predict_batch(convert(inputs))


def _parsed(text: object, source: ModelSource, what: str = "input") -> ValueType:
    try:
        return parse_type(str(text))
    except ClipperError as error:
        raise ContainerFailed(f"{what} type of {source.target}: {error}") from error


def _chosen_type(source: ModelSource, known: ValueType | None) -> ValueType:
    # The default is a list of any length, which most functions can take.
    chosen = _parsed(source.input_type, source) if source.input_type else known or InputType.parse("float64")
    if isinstance(known, InputType) and not (isinstance(chosen, InputType) and is_alike(chosen, known)):
        raise ContainerFailed(f"input type {chosen} does not suit {source.target}, which takes {known}")
    return chosen


def _library_text(model: Any, saved_with: str | None) -> str:
    """Return an object's libraries: the library that defines its class, and scikit-learn if that is loaded."""
    root = type(model).__module__.partition(".")[0]
    own = getattr(sys.modules.get(root), "__version__", None)
    known = [] if own is None or root == "sklearn" else [f"{root} {own}"]
    if (version := scikit_learn.version()) is not None:
        known.append(f"scikit-learn {version}" + (f" (model saved with {saved_with})" if saved_with else ""))
    return ", ".join(known) or f"numpy {np.__version__}"
