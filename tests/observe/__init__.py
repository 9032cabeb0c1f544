"""What monitoring sees: metrics, traces, probes, and the long-running sweep that serves them."""
