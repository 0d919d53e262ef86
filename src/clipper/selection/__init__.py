"""The model selection layer: "answer this application's query"."""
