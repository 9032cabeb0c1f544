"""What is seen and done, as numbers and traces for monitoring systems. Adapters of rotation.telemetry."""
