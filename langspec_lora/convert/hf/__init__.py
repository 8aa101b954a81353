"""M2M100 and NLLB-200 between fairseq's checkpoints and Hugging Face's folders, and adapters as PEFT's LoRA.

- ``model``: a whole model, in and out
- ``config_json``: its settings: ``config.json`` and fairseq's arguments
- ``weights``: the names of its weights on both sides
- ``vocabulary``, ``added_tokens``: the ids of its tokens, read from a tokenizer's files
- ``tokenizer_files``: the tokenizer's files, written
- ``fast_tokenizer``, ``normalisation``, ``nllb_tokenizer``, ``tokenizer_check``: tokenizers of ``tokenizers``
- ``sentencepiece_model``: how a SentencePiece model splits text
- ``peft_folder``: LoRA folders of PEFT
- ``files``: JSON and weights, read safely
"""
