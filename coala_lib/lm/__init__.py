"""The language model: decoder, checkpoints, tokenizer, pooled features, training and guided sampling.

Import from the modules: the decoder alone needs no tokenizer library.
"""
