"""Asks with the client of MLflow's scoring server for the rows of a DataFrame, as a line of JSON."""

import json
import sys

import numpy as np
import pandas as pd
import requests
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

host, _, port = sys.argv[1].partition(":")
client = ScoringServerClient(host, f"{port}/people")
client.ping()
rows = pd.DataFrame({"colour": ["red", "green"], "age": [31, 4.5], "visits": [2, 1], "height": [1.8, np.nan]})
found = {"frame": client.invoke(rows).get_predictions().to_dict("records")}
found["given"] = client.invoke(rows.drop(columns="visits"), params={"visits": 5}).get_predictions().to_dict("records")
csv = rows.assign(label=1).to_csv(index=False)
answer = requests.post(f"http://{host}:{port}/people/invocations", csv, headers={"Content-Type": "text/csv"})
found["csv"] = answer.json()["predictions"]
try:
    client.invoke(rows.assign(colour="blue"))
except Exception as error:  # noqa: BLE001  whatever this client makes of a 400
    found["refused"] = str(error)
print(json.dumps(found, default=str))
