"""Asks with tritonclient for two records, a tensor for each field: as bytes and as JSON, as a line of JSON."""

import json
import sys

import numpy as np
import tritonclient.http as http

client = http.InferenceServerClient(sys.argv[1])
found = {"inputs": [each["name"] for each in client.get_model_metadata("people")["inputs"]]}
for name, binary in (("binary", True), ("json", False)):
    columns = {
        "age": ("FP64", np.array([[31.0], [4.5]])),
        "colour": ("BYTES", np.array(["red", "green"], dtype=np.object_)),
        "visits": ("INT64", np.array([[2], [1]])),
    }
    if binary:
        columns["height"] = ("FP64", np.array([1.8, np.nan]))
    tensors = []
    for field, (datatype, values) in columns.items():
        tensors.append(http.InferInput(field, list(values.shape), datatype))
        tensors[-1].set_data_from_numpy(values, binary_data=binary)
    answer = client.infer("people", tensors)
    found[name] = [json.loads(each) for each in answer.as_numpy("output").flatten()]
print(json.dumps(found))
