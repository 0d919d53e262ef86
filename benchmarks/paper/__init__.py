"""The paper's figures on model selection again, through a running server over HTTP, on real data.

Crankshaw et al.: "Clipper: A Low-Latency Online Prediction Serving System", NSDI 2017.
"""
