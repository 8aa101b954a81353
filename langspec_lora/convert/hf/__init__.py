"""M2M100 and NLLB-200 between fairseq's checkpoints and Hugging Face's folders, and pairs as PEFT's LoRA."""
