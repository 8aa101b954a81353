"""Repairs that let stock fairseq run on today's Python and torch.

``langspec_lora_startup.pth`` is installed next to the package and runs ``startup.py`` whenever Python starts.
``startup.py`` waits for ``import fairseq`` and then applies ``repairs.py``. fairseq's files are not changed.
"""
