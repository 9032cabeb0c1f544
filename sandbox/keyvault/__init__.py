"""A stand-in of Azure Key Vault's secrets API and of the Entra token endpoint, over TLS, for the unmodified Azure SDK.

It keeps to what the service answered in Microsoft's public recordings of the SDK's own tests. Where neither a recording
nor a document tells, the code says so.

    vault.py     what the vault holds, and what each operation does to it
    entra.py     the directory: principals, what they may do, and the tokens that they get
    control.py   the sandbox's own levers: faults, pages of odd sizes, the log of requests
    api.py       HTTP: the service's routes, headers and bodies, and the control plane under /_sandbox/
    serving.py   a threaded TLS server around the above
    server.py    the command: python -m sandbox.keyvault.server
    harness.py   KeyVaultServer, the same in the process of a test
"""
