"""docs/inputs.md: its Python and its JSON, with a server that has the application that they ask."""

import json
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from clipper import Clipper
from clipper.settings.texts import read_features
from clipper.values.records import parse_type
from tests.docs.pages import ROOT, Reader, blocks

TITANIC = 'age: float64?, fare: float64, class: int64{1,2,3}, sex: string{"female","male"}, cabin: string?'
FRAME = pd.DataFrame({"age": [31, None], "fare": [7.25, 80], "class": [3, 1], "sex": ["male", "female"]})


@pytest.mark.long
def test_what_the_page_says_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "inputs.md"
    assert TITANIC in page.read_text()
    found = list(blocks(page))
    reader = Reader(tmp_path)
    reader.run("clipper start")
    try:
        monkeypatch.setenv("CLIPPER_HOME", str(tmp_path / ".clipper"))
        with Clipper.connect() as clipper:
            clipper.deploy("titanic", lambda people: [int(each) for each in people["class"]], input_type=TITANIC)
            clipper.create_application("titanic", model="titanic", slo_ms=20_000)
            assert parse_type(clipper.input_type("titanic")) == parse_type(TITANIC)
            names: dict[str, object] = {"clipper": clipper, "frame": FRAME} | {
                {"class": "classes"}.get(name, f"{name}s"): FRAME[name].to_numpy() for name in ("age", "fare", "class")
            }
            names["sexes"] = list(FRAME["sex"])
            names["print"] = lambda *values: None
            (code,) = (each for each in found if each.language == "python")
            exec(compile(code.text, code.place, "exec"), names)
            for table in (FRAME, FRAME.convert_dtypes(), {name: np.array(FRAME[name]) for name in FRAME}):
                assert [each.output for each in clipper.predict_batch("titanic", table)] == [3, 1]
            assert clipper.predict("titanic", FRAME.iloc[1]).output == 1
            assert clipper.observe("titanic", input=FRAME.iloc[0], label=3).observed
            for block in found:
                if block.language == "json":
                    body = json.loads(block.text)
                    path = "v2/models/titanic/predict" if "inputs" in body else "titanic/predict"
                    answer = httpx.post(f"{clipper.query_url}/{path}", json=body, timeout=60).json()
                    assert [each["output"] for each in answer["batch_predictions"]] == [3, 1], answer
            split = json.loads(FRAME.to_json(orient="split"))
            answer = httpx.post(f"{clipper.query_url}/titanic/invocations", json={"dataframe_split": split}, timeout=60)
            assert answer.json() == {"predictions": [3, 1]}
            clipper.create_application(
                "learns", model="titanic", policy="linucb", features=read_features("age,fare,sex"), slo_ms=20_000
            )
            assert clipper.predict("learns", FRAME.iloc[0]).output == 3
        (tmp_path / "passengers.csv").write_text(FRAME.assign(survived=1).to_csv(index=False))
        assert reader.run("clipper predict titanic age=31 fare=7.25 class=3 sex=male").split()[0] == "3"
        assert reader.run("clipper predict titanic @passengers.csv").split() == ["3", "1"]
    finally:
        reader.run("clipper stop")
