def predict(inputs):
    return [float(row.sum()) for row in inputs]
