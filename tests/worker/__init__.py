"""The built Azure Functions app, driven by the library that the platform's own worker runs apps with."""
