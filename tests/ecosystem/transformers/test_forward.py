import torch
from transformers import BertConfig, BertModel

from smallfry import quantize_embed


def test_a_quantized_encoder_stays_close_to_the_float_one():
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    model = BertModel(BertConfig(vocab_size=300, **sizes)).eval()
    ids = torch.tensor([[1, 2, 3]])
    expected = model(ids).last_hidden_state
    torch.testing.assert_close(quantize_embed(model, 16)(ids).last_hidden_state, expected, rtol=0, atol=1e-3)
