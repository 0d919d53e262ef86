"""What clients find that two generators make of the server's own /openapi.json. It says itself what is right."""

import importlib
import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from showing import outcome, tell

ROW = [1.0, 2.0, 3.0, 4.0]
PERSON = {"age": 31.0, "job": None, "visits": 2}


def run(*command):
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def right(answers):
    """Whether the answers of a generated client are those of the models."""
    return {
        "predict": lambda: answers["row"]().output == 10.0,
        "predict, a batch": lambda: [each.output for each in answers["batch"]()] == [10.0, 10.0],
        "predict, a record": lambda: answers["record"]().output == "31.0|-|2",
        "predict, two outputs": lambda: answers["outputs"]().output.label == 2,
        "predict, NaN": lambda: answers["holes"]().output == [None, 2.0, None, 4.0],
        "an error": lambda: answers["error"]() == "wrong_input",
        "infer": lambda: (
            [(each.name, each.datatype, each.shape) for each in answers["infer"]().outputs]
            == [("output", "FP32", [1, 1])]
        ),
        "observe": lambda: answers["observe"]().observed,
    }


def by_openapi_python_client(url, description, folder):
    config = folder / "config.json"
    config.write_text(json.dumps({"post_hooks": []}))  # its formatter need not be there
    command = ["openapi-python-client", "generate", "--path", description, "--output-path", folder / "made"]
    # A part that is left out of a client is an error.
    run(*command, "--meta", "none", "--config", config, "--fail-on-warning")
    models = importlib.import_module("made.models")
    client = importlib.import_module("made.client").Client(base_url=url)

    def call(name, app, body):
        return importlib.import_module(f"made.api.{app}.{name}_{app}").sync(client=client, body=body)

    def query(app, **fields):
        kind = getattr(models, f"Predict{app.title()}QueryOf{app.title()}")
        return call("predict", app, kind(**fields))

    tensor = models.Tensor(name="input", shape=[1, 4], datatype="FP32", data=ROW)
    return right(
        {
            "row": lambda: query("total", input_=ROW),
            "batch": lambda: query("total", input_batch=[ROW] * 2).batch_predictions,
            "record": lambda: query("people", input_=models.PredictPeopleQueryOfPeopleInput(**PERSON)),
            "outputs": lambda: query("classes", input_=ROW),
            "holes": lambda: query("holes", input_=[-1.0, 2.0, 200.0, 4.0]),
            "error": lambda: query("total", input_=[1.0]).error.value,
            "infer": lambda: call("infer", "total", models.InferRequest(inputs=[tensor])),
            "observe": lambda: call("observe", "total", models.ObserveTotalFeedbackOnTotal(input_=ROW, label=10.0)),
        }
    )


def by_openapi_generator(url, description, folder):
    run("openapi-generator-cli", "generate", "-i", description, "-g", "python", "-o", folder, "--package-name", "other")
    package = importlib.import_module("other")
    client = package.ApiClient(package.Configuration(host=url))

    def call(name, app, body):
        api = getattr(importlib.import_module(f"other.api.{app}_api"), f"{app.title()}Api")(client)
        answer = getattr(api, f"{name}_{app}")(body)
        return getattr(answer, "actual_instance", answer)

    def query(app, **fields):
        return call("predict", app, getattr(package, f"QueryOf{app.title()}")(**fields))

    def refused():
        try:
            call("predict", "total", package.QueryOfTotal.model_construct(input=[1.0]))
        except importlib.import_module("other.exceptions").BadRequestException as error:
            return error.data.error

    tensor = package.Tensor(name="input", shape=[1, 4], datatype="FP32", data=ROW)
    return right(
        {
            "row": lambda: query("total", input=ROW),
            "batch": lambda: [each.actual_instance for each in query("total", input_batch=[ROW] * 2).batch_predictions],
            "record": lambda: query("people", input=PERSON),
            "outputs": lambda: query("classes", input=ROW),
            "holes": lambda: query("holes", input=[-1.0, 2.0, 200.0, 4.0]),
            "error": refused,
            "infer": lambda: call("infer", "total", package.InferRequest(inputs=[tensor])),
            "observe": lambda: call("observe", "total", package.FeedbackOnTotal(input=ROW, label=10.0)),
        }
    )


def main(http):
    found = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        sys.path.insert(0, text)
        description = folder / "openapi.json"
        with urllib.request.urlopen(f"http://{http}/openapi.json", timeout=60) as answer:
            description.write_bytes(answer.read())
        for make in (by_openapi_python_client, by_openapi_generator):
            name = make.__name__.removeprefix("by_").replace("_", "-")
            checks = make(f"http://{http}", description, folder)
            found |= {
                f"{check}, {name}": outcome(lambda: "right" if is_right() else "wrong")
                for check, is_right in checks.items()
            }
    tell(found)


main(sys.argv[1])
