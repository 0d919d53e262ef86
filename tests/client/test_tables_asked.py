"""Both clients ask a worker for the rows of tables of pandas, polars and pyarrow, which all get the same answers."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from clipper import AsyncClipper, Clipper
from clipper.errors import ClipperError, WrongInput
from tests.serving import application, model, serving, version

PERSON = 'age: float64, job: string?, visits: int32 = 1, sex: string{"f","m"}'
ROWS: list[dict[str, Any]] = [
    {"age": 31.5, "job": "smith", "visits": 2, "sex": "m"},
    {"age": 4.0, "job": None, "visits": 1, "sex": "f"},
    {"age": 1e300, "job": "é,\n", "visits": -3, "sex": "f"},
]
BY_NAME = {name: [row[name] for row in ROWS] for name in ROWS[0]}
FRAME = pd.DataFrame(BY_NAME)
TOTAL = "def predict(inputs): return [float(row.sum()) for row in inputs]\n"

Ask = Callable[[str, Any], list[Any]]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving() as started:
        started.start_worker()
        people = started.start_record_container("people", PERSON)
        total = started.start_container(TOTAL, model="total", input_type="float64[3]")
        started.apply(
            [
                application("people", "people", input_type=PERSON),
                application("total", "total", input_type="float64[3]"),
            ],
            [
                model(version(people, input_type=PERSON), name="people"),
                model(version(total, input_type="float64[3]"), name="total"),
            ],
        )
        yield f"http://127.0.0.1:{started.port}"


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, address: str, tmp_path: Path) -> Ask:
    def with_clipper(name: str, inputs: Any) -> list[Any]:
        with Clipper.connect(query_url=address, home=tmp_path) as clipper:
            return [outcome(one) for one in clipper.predict_batch(name, inputs)]

    def with_async_clipper(name: str, inputs: Any) -> list[Any]:
        async def asked() -> list[Any]:
            async with await AsyncClipper.connect(query_url=address, home=tmp_path) as clipper:
                return [outcome(one) for one in await clipper.predict_batch(name, inputs)]

        return asyncio.run(asked())

    return with_clipper if request.param == "sync" else with_async_clipper


def outcome(one: Any) -> Any:
    if isinstance(one, ClipperError):
        raise one
    return one.output


TABLES = {
    "a frame of pandas": FRAME,
    "a frame of pandas with its own types": FRAME.convert_dtypes().astype({"sex": "category", "visits": "Int8"}),
    "a frame of pandas on arrow": FRAME.convert_dtypes(dtype_backend="pyarrow"),
    "a part of a frame": pd.concat([FRAME, FRAME]).iloc[3:],
    "a frame of polars": pl.DataFrame(BY_NAME),
    "a frame of polars with categories": pl.DataFrame(BY_NAME).with_columns(
        pl.col("sex").cast(pl.Categorical), pl.col("age").cast(pl.Float64), pl.col("visits").cast(pl.Int8)
    ),
    "a table of pyarrow": pa.table(BY_NAME),
    "a table of pyarrow in two pieces": pa.concat_tables([pa.table(BY_NAME).slice(0, 1), pa.table(BY_NAME).slice(1)]),
    "a table of pyarrow with a dictionary": pa.table(BY_NAME | {"sex": pa.array(BY_NAME["sex"]).dictionary_encode()}),
    "a batch of pyarrow": pa.RecordBatch.from_pydict(BY_NAME),
    "arrays by name": BY_NAME | {"age": np.array(BY_NAME["age"]), "visits": np.array(BY_NAME["visits"], "i2")},
    "lists by name": BY_NAME,
    "records": ROWS,
}


@pytest.mark.parametrize("name", TABLES)
def test_rows_of_any_table_are_answered(ask: Ask, name: str) -> None:
    assert ask("people", TABLES[name]) == ROWS


NUMBERS = {"a": [1.0, 4.0], "b": [2, 5], "c": [3.5, 6.5]}


@pytest.mark.parametrize(
    "table", [pd.DataFrame(NUMBERS), pl.DataFrame(NUMBERS), pa.table(NUMBERS), pa.RecordBatch.from_pydict(NUMBERS)]
)
def test_tables_of_numbers_are_answered_by_a_model_of_lists(ask: Ask, table: Any) -> None:
    assert ask("total", table) == [6.5, 15.5]


@pytest.mark.parametrize("table", [FRAME, pl.DataFrame(BY_NAME), pa.table(BY_NAME)])
def test_a_value_that_is_wrong_is_told_by_its_column(ask: Ask, table: Any) -> None:
    renamed = {"age": BY_NAME["job"], **{name: values for name, values in BY_NAME.items() if name != "age"}}
    made = {pd.DataFrame: pd.DataFrame, pl.DataFrame: pl.DataFrame, pa.Table: pa.table}[type(table)](renamed)
    with pytest.raises(WrongInput, match="field 'age' is"):
        ask("people", made)
