"""AWS for the sandbox: Secrets Manager as documented, and moto's IAM and STS with what they let pass refused."""
