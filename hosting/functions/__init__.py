"""The Azure Functions app as it stands at the root of its package."""
