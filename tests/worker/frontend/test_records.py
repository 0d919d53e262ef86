"""Records through a real worker: what comes in as JSON or tensors, what a container of protocol 4 gets."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from clipper.settings.application import Selection
from clipper.worker.frontend.inference import invocations
from tests.serving import Client, Response, Serving, application, model, serving, version
from tests.waiting import until
from tests.worker.frontend.steps import finish

PERSON = 'age: float64, job: string?, visits: int32 = 1, colour: string{"red","green"}, photo: uint8[2,2]?'
RETRAINED = PERSON.replace('"green"', '"green","blue"')
ANNA: dict[str, Any] = {"age": 31, "job": "smith", "visits": 2, "colour": "red", "photo": [[1, 2], [3, 4]]}
ANNA_TOLD = ANNA | {"age": 31.0}
BOB = {"age": 4.5, "colour": "green"}
BOB_TOLD = {"age": 4.5, "job": None, "visits": 1, "colour": "green", "photo": None}
POINTS = "points: float32[*,2], id: int64"


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    with serving() as started:
        started.start_worker()
        people = started.start_record_container("people", PERSON)
        points = started.start_record_container("points", POINTS)
        retrained = started.start_record_container("retrained", RETRAINED)
        old = started.start_record_container("old", PERSON, protocol=3)
        applied = started.apply(
            [
                application("people", "people", input_type=PERSON),
                application("lenient", "people", input_type=PERSON, ignore_unknown_fields=True, null_is_nan=True),
                application("points", "points", input_type=POINTS),
                application("old", "old", input_type=PERSON, slo_ms=1000),
                application("retrained", "retrained", input_type=PERSON),
                application(
                    "learning",
                    "people",
                    input_type=PERSON,
                    selection=Selection(policy="linucb", features="age, colour"),
                ),
            ],
            [
                model(version(people, input_type=PERSON, cache=True), name="people"),
                model(version(points, input_type=POINTS), name="points"),
                model(version(old, input_type=PERSON), name="old"),
                model(version(retrained, input_type=RETRAINED), name="retrained"),
            ],
        )
        assert list(applied.unlinked) == [old.address.id]
        assert "records need version 4, so deploy the model with a newer SDK" in applied.unlinked[old.address.id]
        yield started


@pytest.fixture(scope="module")
def client(system: Serving) -> Iterator[Client]:
    with system.worker.connect() as connected:
        yield connected


def outputs(response: Response) -> list[Any]:
    assert response.status == 200, response.json
    return [each["output"] for each in response.json["batch_predictions"]]


def test_one_record_in_any_order_of_its_keys(client: Client) -> None:
    for record in (ANNA, dict(reversed(ANNA.items()))):
        assert client.ask("/people/predict", {"input": record}).json["output"] == ANNA_TOLD
    assert client.ask("/people/predict", {"input": BOB, "context": "b"}).json["output"] == BOB_TOLD


def test_several_records_as_objects_and_as_columns(client: Client) -> None:
    assert outputs(client.ask("/people/predict", {"input_batch": [ANNA, BOB]})) == [ANNA_TOLD, BOB_TOLD]
    columns = {name: [ANNA[name], BOB_TOLD[name]] for name in ANNA}
    assert outputs(client.ask("/people/predict", {"input_columns": columns})) == [ANNA_TOLD, BOB_TOLD]
    many = {"age": list(range(5000)), "colour": ["red"] * 5000}
    found = outputs(client.ask("/people/predict", {"input_columns": many}))
    assert [each["age"] for each in found] == many["age"]


def test_a_long_record_is_read_in_pieces(client: Client) -> None:
    record = {"points": [[index, 0.5] for index in range(20_000)], "id": 7}
    answer = client.ask("/points/predict", {"input": record}).json
    assert answer["output"] == {"points": [[float(index), 0.5] for index in range(20_000)], "id": 7}


def test_of_equal_keys_the_last_counts(client: Client) -> None:
    """However long the body is, and whatever the values before were."""
    pairs = b'"age":"old","job":"cook","age":4.5,"job":null,"colour":"green"'
    assert client.ask("/people/predict", b'{"input":{%b}}' % pairs).json["output"] == BOB_TOLD
    assert client.ask("/people/predict", b'{"input":7,"input":{%b}}' % pairs).json["output"] == BOB_TOLD
    assert outputs(client.ask("/people/predict", b'{"input_batch":[{%b}]}' % pairs)) == [BOB_TOLD]
    columns = b'{"age":[1],"colour":["red"],"age":[4.5],"colour":["green"]}'
    assert outputs(client.ask("/people/predict", b'{"input_columns":%b}' % columns)) == [BOB_TOLD]
    assert invoke(client, "people", b'{"instances":[{%b}]}' % pairs).json == {"predictions": [BOB_TOLD]}
    points = b'"id":7,"points":[[1,2]],"points":[%b[3,4]]' % (b"[0,0]," * 20_000)
    answer = client.ask("/points/predict", b'{"input":{"id":"x",%b}}' % points).json["output"]
    assert (answer["id"], len(answer["points"]), answer["points"][-1]) == (7, 20_001, [3.0, 4.0])


def test_columns_take_the_values_that_an_object_takes(client: Client) -> None:
    for values in ({"visits": [2.0, 1]}, {"job": ["\u00e9", None]}, {"photo": [None, [[1, 2], [3, 4.0]]]}):
        columns = {"age": [1, 2.5], "colour": ["red", "green"]} | values
        objects = [{name: each[row] for name, each in columns.items()} for row in range(2)]
        found = outputs(client.ask("/people/predict", {"input_columns": columns}))
        assert found == outputs(client.ask("/people/predict", {"input_batch": objects}))
    for name, value, says in (
        ("visits", 2**31, "field 'visits' is 2147483648: expected int32"),
        ("age", True, "field 'age' is true"),
        ("colour", None, "field 'colour' is null: expected one of"),
        ("photo", [[1, 2], [3, 256]], "field 'photo' is"),
    ):
        columns = {"age": [1, 2], "colour": ["red", "red"]}
        refused = client.ask("/people/predict", {"input_columns": columns | {name: [value, value]}})
        assert refused.status == 400 and says in refused.json["cause"], refused.json
    refused = client.ask("/points/predict", {"input_columns": {"id": [2**63], "points": [[[1, 2]]]}})
    assert refused.status == 400 and "field 'id'" in refused.json["cause"]


@pytest.mark.parametrize(
    ("body", "error", "says"),
    [
        ({"input": ANNA | {"age": "old"}}, "wrong_input", "field 'age' is \"old\": expected float64"),
        ({"input": {"age": 1}}, "wrong_input", "input lacks colour: string"),
        ({"input": ANNA | {"agee": 1}}, "wrong_input", "has the field 'agee', which is not known"),
        ({"input": [1]}, "wrong_input", "expected an object with the fields 'age', 'job'"),
        ({"input": ANNA, "input_columns": {}}, "malformed_request", "body has input and input_columns"),
        ({"input_columns": {}}, "wrong_input", "input lacks age: float64"),
        ({"input_columns": 3}, "wrong_input", "input_columns is no object: expected one with the fields 'age'"),
    ],
)
def test_what_does_not_fit_is_told_by_field(client: Client, body: Any, error: str, says: str) -> None:
    response = client.ask("/people/predict", body)
    assert (response.status, response.json["error"]) == (400, error)
    assert says in response.json["cause"]


def test_an_option_lets_unknown_fields_pass(client: Client) -> None:
    assert client.ask("/lenient/predict", {"input": ANNA | {"agee": 1}}).json["output"] == ANNA_TOLD


def test_a_container_of_an_older_protocol_gets_no_record(client: Client) -> None:
    answer = client.ask("/old/predict", {"input": ANNA}).json
    assert answer["error"] == "no_replica"


def infer(client: Client, application: str, inputs: list[dict[str, Any]], tensors: bytes = b"") -> Response:
    text = json.dumps({"inputs": inputs}).encode()
    headers = {"Inference_Header_Content_Length": str(len(text))} if tensors else {}
    return client.ask(f"/v2/models/{application}/predict", text + tensors, **headers)


def tensor(name: str, datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def test_metadata_have_a_tensor_for_each_field(client: Client) -> None:
    client.send(b"GET /v2/models/people HTTP/1.1\r\nHost: localhost\r\n\r\n")
    inputs = client.read("GET").json["inputs"]
    assert [(each["name"], each["datatype"], each["shape"]) for each in inputs] == [
        ("age", "FP64", [-1, 1]),
        ("job", "BYTES", [-1, 1]),
        ("visits", "INT32", [-1, 1]),
        ("colour", "BYTES", [-1, 1]),
        ("photo", "UINT8", [-1, 2, 2]),
    ]


def test_a_tensor_for_each_field_in_json(client: Client) -> None:
    inputs = [
        tensor("colour", "BYTES", [2, 1], [["red"], ["green"]]),
        tensor("age", "FP32", [2], [31, 4.5]),
        tensor("job", "BYTES", [2], ["smith", None]),
        tensor("visits", "INT64", [2, 1], [2, 1]),
    ]
    expected = [ANNA_TOLD | {"photo": None}, BOB_TOLD]
    assert outputs(infer(client, "people", inputs)) == expected


def test_a_tensor_for_each_field_as_bytes(client: Client) -> None:
    parts = {
        "age": ("FP64", [2], np.array([31, 4.5], "<f8").tobytes()),
        "colour": ("BYTES", [2, 1], b"\x03\0\0\0red\x05\0\0\0green"),
        "visits": ("INT8", [2], np.array([2, 1], "i1").tobytes()),
        "photo": ("UINT8", [2, 2, 2], bytes(range(8))),
    }
    inputs = [
        {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, (datatype, shape, data) in parts.items()
    ]
    found = outputs(infer(client, "people", inputs, b"".join(data for _, _, data in parts.values())))
    assert found == [
        ANNA_TOLD | {"job": None, "photo": [[0, 1], [2, 3]]},
        BOB_TOLD | {"photo": [[4, 5], [6, 7]]},
    ]


@pytest.mark.parametrize("is_binary", [True, False])
def test_tensors_of_any_numbers_and_of_truths(client: Client, is_binary: bool) -> None:
    values = {"age": ("INT64", [-31, 4]), "visits": ("INT32", [-2, -1]), "colour": ("BYTES", ["red", "red"])}
    expected = [BOB_TOLD | {"age": -31.0, "visits": -2}, BOB_TOLD | {"age": 4.0, "visits": -1}]
    assert outputs(infer(client, "people", *sent(values, is_binary))) == [each | {"colour": "red"} for each in expected]
    for rows in (2, 9_000):  # short and long data
        truths = [index % 2 == 0 for index in range(rows)]
        values = {"age": ("BOOL", truths), "visits": ("BOOL", truths), "colour": ("BYTES", ["red"] * rows)}
        found = outputs(infer(client, "people", *sent(values, is_binary)))
        assert [(each["age"], each["visits"]) for each in found] == [(float(each), int(each)) for each in truths]


def sent(values: dict[str, tuple[str, list[Any]]], is_binary: bool) -> tuple[list[dict[str, Any]], bytes]:
    """The tensors of these columns, of shape [n,1], and what follows their description."""
    if not is_binary:
        return [tensor(name, datatype, [len(each), 1], each) for name, (datatype, each) in values.items()], b""
    codes = {"INT64": "<i8", "INT32": "<i4", "BOOL": "?"}
    inputs, parts = [], []
    for name, (datatype, each) in values.items():
        texts = [len(text).to_bytes(4, "little") + text.encode() for text in each] if datatype == "BYTES" else []
        parts.append(b"".join(texts) if texts else np.array(each, codes[datatype]).tobytes())
        described = {"name": name, "datatype": datatype, "shape": [len(each), 1]}
        inputs.append(described | {"parameters": {"binary_data_size": len(parts[-1])}})
    return inputs, b"".join(parts)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"age": tensor("age", "FP64", [2, 2], [1, 2, 3, 4])}, "input 'age' has shape [2,2]: expected [-1,1]"),
        ({"age": tensor("age", "FP64", [1], [1])}, "1 rows of 'age', 2 rows of 'colour': expected as many of each"),
        ({"age": tensor("age", "BYTES", [2], ["a", "b"])}, "input 'age' has datatype BYTES"),
        ({"colour": tensor("colour", "BYTES", [2], ["red", "blue"])}, "field 'colour' is \"blue\""),
        ({"visits": tensor("visits", "FP64", [2], [1.5, 1])}, "field 'visits' is 1.5: expected int32"),
        ({"other": tensor("other", "FP64", [2], [1, 1])}, "has the field 'other', which is not known"),
        ({"age": tensor("agee", "FP64", [2], [1, 1])}, "has the field 'agee'"),
    ],
)
def test_tensors_that_do_not_fit_are_told_by_name(client: Client, change: dict[str, Any], says: str) -> None:
    inputs = {
        "age": tensor("age", "FP64", [2], [1, 2]),
        "colour": tensor("colour", "BYTES", [2], ["red", "green"]),
    }
    response = infer(client, "people", list((inputs | change).values()))
    assert response.status == 400
    assert says in response.json["error"]


def test_unknown_tensors_are_read_over_if_the_application_lets_them_pass(client: Client) -> None:
    inputs = [
        {"name": "other", "datatype": "FP64", "shape": [3], "parameters": {"binary_data_size": 24}},
        tensor("age", "FP64", [1], [31]),
        tensor("colour", "BYTES", [1], ["red"]),
    ]
    answer = infer(client, "lenient", inputs, bytes(24)).json
    assert answer["output"] == {"age": 31.0, "job": None, "visits": 1, "colour": "red", "photo": None}


def test_a_policy_learns_from_fields_and_feedback_brings_a_record(client: Client) -> None:
    answer = client.ask("/learning/predict", {"input": ANNA}).json
    assert client.ask("/learning/observe", {"query_id": answer["query_id"], "label": ANNA_TOLD}).json["observed"]
    assert client.ask("/learning/observe", {"input": BOB, "label": 1}).json["observed"]
    wrong = client.ask("/learning/observe", {"input": BOB | {"age": "x"}, "label": 1})
    assert wrong.status == 400 and "field 'age'" in wrong.json["cause"]
    tensors = [
        tensor("age", "FP64", [1], [31]),
        tensor("colour", "BYTES", [1], ["red"]),
        tensor("label", "INT64", [1], [1]),
    ]
    told = client.ask("/v2/models/learning/observe", {"inputs": tensors}).json
    assert told["observed"]


def test_categories_are_those_that_the_linked_models_know(client: Client) -> None:
    record = BOB | {"colour": "blue"}
    assert client.ask("/retrained/predict", {"input": record}).json["output"]["colour"] == "blue"
    assert client.ask("/people/predict", {"input": record}).status == 400


def test_equal_records_share_a_place_in_the_cache(system: Serving, client: Client) -> None:
    def hits() -> int:
        return sum(each.cache_hits for each in system.worker.statistics().versions if each.model == "people")

    record = ANNA | {"job": "asked twice"}
    client.ask("/people/predict", {"input": record})
    before = hits()
    client.ask("/people/predict", {"input": dict(reversed(record.items()))})
    until(lambda: hits() == before + 1)


def invoke(client: Client, application: str, body: Any) -> Response:
    return client.ask(f"/{application}/invocations", body, Content_Type="application/json")


def test_mlflows_forms_are_answered_as_mlflow_does(client: Client) -> None:
    names = list(reversed(ANNA))
    split = {
        "columns": names,
        "index": [0, 1],
        "data": [[each[name] for name in names] for each in (ANNA_TOLD, BOB_TOLD)],
    }
    expected = {"predictions": [ANNA_TOLD, BOB_TOLD]}
    assert invoke(client, "people", {"dataframe_split": split}).json == expected
    assert invoke(client, "people", {"dataframe_records": [ANNA, BOB]}).json == expected
    assert invoke(client, "people", {"instances": [ANNA, BOB]}).json == expected
    assert invoke(client, "people", {"inputs": {name: [ANNA[name], BOB_TOLD[name]] for name in ANNA}}).json == expected
    assert invoke(client, "people", {"instances": [BOB]}).json == {"predictions": [BOB_TOLD]}
    # As Python writes it, and in a text it is a text.
    body = b'{"dataframe_split":{"columns":["age","colour","job","visits"],"data":[[1,"red","NaN",1],[2,"red",NaN,2]]}}'
    found = invoke(client, "people", body).json["predictions"]
    assert [(each["age"], each["job"]) for each in found] == [(1.0, "NaN"), (2.0, None)]
    client.send(b"GET /people/ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.read("GET").status == 200


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"instances": [ANNA], "inputs": [ANNA]}, "body has instances and inputs"),
        ({}, "body has no inputs: expected one of dataframe_split"),
        ({"instances": []}, "instances has no rows"),
        ({"dataframe_split": {"columns": ["age"], "data": [[1]]}}, "input lacks colour: string"),
        (
            {"dataframe_split": {"columns": ["age", "colour"], "data": [[1]]}},
            "a row is a list of 1: expected a list of 2",
        ),
        ({"dataframe_split": {"columns": ["age", "age"], "data": [[1, 2]]}}, "has a column twice"),
        ({"dataframe_split": {"columns": [[1]], "data": [[1]]}}, "columns that are no names"),
        ({"dataframe_split": {"data": [[1]]}}, "has no columns or no data"),
        ({"inputs": {"age": [1], "colour": ["blue"]}}, "field 'colour' is"),
        (b"{", "body is not JSON"),
    ],
)
def test_what_mlflows_forms_lack_is_told_as_mlflow_does(client: Client, body: Any, says: str) -> None:
    response = invoke(client, "people", body)
    assert response.status == 400
    assert says in response.json["message"] and response.json["error_code"]


def test_mlflows_params_are_for_all_rows_and_others_are_ignored(client: Client) -> None:
    for form in ({"instances": [ANNA, BOB]}, {"inputs": {"age": [31, 4.5], "colour": ["red", "green"]}}):
        body = form | {"params": {"visits": 7, "job": "cook", "colour": "green", "unknown": [1]}}
        found = invoke(client, "people", body).json["predictions"]
        assert [(each["visits"], each["job"], each["colour"]) for each in found] == [
            (7, "cook", "red"),
            (7, "cook", "green"),
        ]
    # As MLflow's server does with columns that the signature does not have.
    split = {"columns": ["extra", *BOB], "data": [["x", *BOB.values()]]}
    assert invoke(client, "people", {"dataframe_split": split, "params": None}).json == {"predictions": [BOB_TOLD]}
    for params, says in (({"visits": "many"}, "field 'visits' is"), ([1], "params is no object"), ("", "no object")):
        refused = invoke(client, "people", {"instances": [BOB], "params": params})
        assert (refused.status, says in refused.json["message"]) == (400, True), refused.json
    refused = invoke(client, "people", {"instances": [BOB], "params": {"x": "y" * 20_000}})
    assert refused.status == 400 and "expected at most 16384" in refused.json["message"]


def invoke_csv(client: Client, application: str, text: str | bytes) -> Response:
    body = text.encode() if isinstance(text, str) else text
    return client.ask(f"/{application}/invocations", body, Content_Type="text/csv; charset=utf-8")


def test_csv_is_answered_as_mlflow_does(client: Client) -> None:
    rows = '\ufeffcolour,label,age,job,visits,\r\nred,1,31,"a, ""b""\n",2,0\r\n\r\ngreen,1,4.5,,,1\r\n'
    found = invoke_csv(client, "people", rows).json["predictions"]
    assert [(each["colour"], each["age"], each["job"], each["visits"]) for each in found] == [
        ("red", 31.0, 'a, "b"\n', 2),
        ("green", 4.5, None, 1),
    ]
    assert invoke_csv(client, "people", "age,colour\nNaN,red").status == 400
    many = "age,colour\n" + "1,red\n" * 3000
    assert len(invoke_csv(client, "people", many).json["predictions"]) == 3000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the CSV has no rows"),
        ("age,colour\n", "the CSV has no rows"),
        ("age,age\n1,2\n", "line 1 of the CSV: the first line has a name twice"),
        ("age,colour\n1\n", "line 2 of the CSV: it has 1 values: expected 2"),
        ("age,colour\n1,red\nold,red\n", "line 3 of the CSV: age=old is not valid"),
        ("age,colour\n1,blue\n", "line 2 of the CSV: field 'colour' is"),
        ("age\n1\n", "line 2 of the CSV: input lacks colour"),
        (b"age,colour\n1,\xff\n", "of the CSV: 'utf-8' codec"),
        ("age,colour\n" + "," * 70_000, "it has over 65536 bytes: send such rows as JSON"),
        ('age,colour\n1,"red\n' + "x\n" * 100_000, "it has over 65536 bytes: send such rows as JSON"),
        ('age,colour\n1,"red\n', "of the CSV: unexpected end of data"),
        ("age,colour\n" + "1,red\n" * 10_001, "over 10000 rows"),
    ],
)
def test_csv_that_is_wrong_is_refused_with_its_line(client: Client, text: str | bytes, says: str) -> None:
    response = invoke_csv(client, "people", text)
    assert response.status == 400
    assert says in response.json["message"]


@pytest.mark.parametrize("piece_bytes", [3, 7, 50])
def test_nan_is_replaced_outside_of_strings_wherever_pieces_end(
    monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    monkeypatch.setattr(invocations, "_PIECE_BYTES", piece_bytes)
    text = b'[NaN,"NaN","a\\\\",NaN,"\\"NaN","NaNaN",NaN]'
    replaced = finish(invocations._without_nan(bytearray(text)))
    assert json.loads(replaced) == [None, "NaN", "a\\", None, '"NaN', "NaNaN", None]
