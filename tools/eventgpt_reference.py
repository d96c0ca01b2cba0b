"""EventGPT in torch, from its published description, to hold paceline's own against: CLIP's last hidden states with the
class row, a projector, an adaptor, spatio-temporal pooling with the temporal rows first, rows in the place of <event>,
embeddings cut at 2048, then a Llama.
"""

import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

EVENT = -200
MAX_ROWS = 2048


class EventGPT(nn.Module):
    def __init__(self, llama: LlamaConfig, tower: CLIPVisionConfig):
        super().__init__()
        h = llama.hidden_size
        self.tower = CLIPVisionModel(tower)
        self.projector = nn.Sequential(nn.Linear(tower.hidden_size, h), nn.GELU(), nn.Linear(h, h))
        self.adaptor = nn.Linear(h, h)
        self.llama = LlamaForCausalLM(llama)

    def rows(self, pixels):
        """pixels [frames, 3, h, w] → [frames + tokens, hidden]"""
        x = torch.stack([self.adaptor(self.projector(self.tower(p[None]).last_hidden_state))[0] for p in pixels])
        return torch.cat([x.mean(dim=1), x.mean(dim=0)])

    def embeds(self, ids, pixels):
        at = (ids == EVENT).nonzero().item()
        words = self.llama.get_input_embeddings()
        return torch.cat([words(ids[:at]), self.rows(pixels), words(ids[at + 1:])])[:MAX_ROWS]

    @torch.no_grad()
    def logits(self, ids, pixels):
        return self.llama(inputs_embeds=self.embeds(ids, pixels)[None]).logits[0]

    @torch.no_grad()
    def greedy(self, ids, pixels, n, banned):
        x, out = self.embeds(ids, pixels), []
        for _ in range(n):
            logits = self.llama(inputs_embeds=x[None]).logits[0, -1]
            logits[banned] = -torch.inf
            out.append(int(logits.argmax()))
            x = torch.cat([x, self.llama.get_input_embeddings()(torch.tensor(out[-1:]))])
        return out

    def official(self):
        """The state by the names of the published checkpoint."""
        names = {}
        for k, v in self.tower.state_dict().items():
            k = k if k.startswith("vision_model.") else "vision_model." + k
            names["model.visual_tower.visual_tower." + k] = v
        names.update({"model.visual_projector." + k: v for k, v in self.projector.state_dict().items()})
        names.update({"model.feature_adaptor." + k: v for k, v in self.adaptor.state_dict().items()})
        names.update(self.llama.state_dict())
        return {k: v.contiguous() for k, v in names.items() if "position_ids" not in k}
