"""GitHub's secret-scanning alerts: taken in over HTTP, looked up, matched, planned; acted on where that is declared.

`server` knows HTTP: limits, signature, answer. `delivery` tells what a delivery says (pure), `memory` which were taken and
what of them is left to do (one file). `worker` takes up what was taken, again where it failed: `alerts` gets the value
from GitHub's API, into memory only, and `opening` makes an incident of it, as `keyturn emergency --leak` does.
"""
