"""The models that are functions, as Clipper takes them."""

import time

# As in model.py, which is not on a container's path. One replica does one batch at a time.
BATCH_S, ROW_S = 40e-3, 50e-6


def total(inputs):
    return inputs.sum(1)


def slept(inputs):
    time.sleep(BATCH_S + len(inputs) * ROW_S)
    return inputs.sum(1)


def doubled(inputs):
    return inputs * 2


def raised(inputs):
    return inputs + 1


def ranked(inputs):
    return inputs["left"].sum(1) + inputs["right"].sum(1)
