"""Access keys of AWS's IAM, against the sandbox's IAM and STS."""
