"""Many machines: a job's stage runs on another one, and its files move by content. The queue keeps the state.

``parcel`` names the files that a job needs, ``unit`` runs it on a node, ``afar`` follows it for the worker, and
``rays`` places it with Ray. Only ``rays`` imports Ray.
"""
