"""Flask under gunicorn, which calls the model in the web process, row by row. ``READS`` is ``json`` or ``simd``."""

import os

import fast_json
import model
from flask import Flask, jsonify, request

app = Flask(__name__)
predictor = model.load()
SIMD = os.environ["READS"] == "simd"


@app.post("/predict")
def predict():
    row = fast_json.row(request.get_data()) if SIMD else request.get_json()["input"]
    return jsonify(label=predictor.predict([row])[0].item())
