"""Adapters as data, without a model.

- ``packed``: the adapters of all languages, packed by site
- ``entries``: their names and shapes in a model's state
- ``checks``: whether the entries of a state are complete and valid
- ``placement``: which sites are adapted, and which side selects each adapter
- ``budget``: ranks that fit a number of parameters
- ``learned_directions``: which side each layer has learned, and the adapters of that side alone
- ``edit``: adding, removing and joining languages
- ``averaging``: the mean of several checkpoints of one training
- ``counts``: how many parameters they have, and how many survived pruning
- ``adapter_folder``: the adapter folder: ``adapter.safetensors`` and ``adapter_config.json``
"""
