"""The peer: diffusers' DiT in PyTorch, in a process of its own: a JSON line asks for one run.

It imports nothing of ours, so that any Python with torch and diffusers can run it.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch  # pyrefly: ignore[missing-import]
from diffusers import DiTTransformer2DModel  # pyrefly: ignore[missing-import]


def network(size: dict[str, Any], device: str) -> Any:
    """The same width, depth, heads and tokens as ours, whose fields `size` has."""
    model: Any = DiTTransformer2DModel(
        num_attention_heads=size["num_heads"],
        attention_head_dim=size["hidden_size"] // size["num_heads"],
        in_channels=size["channels"],
        out_channels=size["channels"],
        num_layers=size["depth"],
        sample_size=size["image_size"],
        patch_size=size["patch_size"],
        num_embeds_ada_norm=size["num_classes"],
    )
    return model.to(device)


def training(size: dict[str, Any], batch: int, compiled: bool, dtype: torch.dtype, device: str) -> Callable[..., None]:
    """A flow-matching step with fused AdamW and an average of the weights."""
    model = network(size, device).train()
    average = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    data = torch.randn((batch, size["channels"], size["image_size"], size["image_size"]), device=device)
    labels = torch.randint(size["num_classes"], (batch,), device=device)
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        noise, t = torch.randn_like(data), torch.rand(batch, device=device)
        x = torch.lerp(noise, data, t.view(-1, 1, 1, 1))
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            velocity = forward(x, timestep=1000 * t, class_labels=labels).sample
        torch.nn.functional.mse_loss(velocity.float(), data - noise).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(average, list(model.parameters()), 1e-3)

    return step


def sampling(
    size: dict[str, Any], batch: int, compiled: bool, dtype: torch.dtype, device: str, guided: bool
) -> Callable[..., None]:
    """`steps` Euler steps from noise; guided, each is one call of twice the batch."""
    model = network(size, device).eval().to(dtype)
    forward = torch.compile(model) if compiled else model
    shape = (batch, size["channels"], size["image_size"], size["image_size"])
    copies = 2 if guided else 1
    labels = torch.zeros(copies * batch, dtype=torch.long, device=device)

    @torch.inference_mode()
    def draw(steps: int = 1) -> None:
        x = torch.randn(shape, device=device, dtype=dtype)
        for i in range(steps):
            t = torch.full(labels.shape, 1000 * i / steps, device=device)
            velocity = forward(torch.cat([x] * copies), timestep=t, class_labels=labels).sample
            if guided:
                labelled, null = velocity.chunk(2)
                velocity = null + 1.5 * (labelled - null)
            x = x + velocity / steps
        x.float().cpu()

    return draw


def main() -> None:
    """Make the contestant that the first argument describes; answer every line with seconds, or with facts."""
    given = json.loads(sys.argv[1])
    make, size = {"step": training, "sample": sampling}[given.pop("kind")], given.pop("model")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, size.get("dtype", "float32"))
    # On a GPU, JAX multiplies float32 in TF32 unless told otherwise, and so does PyTorch here.
    torch.set_float32_matmul_precision("high" if device == "cuda" else "highest")
    run = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            run = run or make(size, dtype=dtype, device=device, **given)
            if asked.pop("facts", False):
                answer: dict[str, Any] = {"torch": torch.__version__}
                answer |= {"peak": torch.cuda.max_memory_allocated()} if device == "cuda" else {}
            else:
                began = time.perf_counter()
                run(**asked)
                if device == "cuda":
                    torch.cuda.synchronize()
                answer = {"seconds": time.perf_counter() - began}
        except Exception as error:  # Whatever keeps a peer from running belongs in its row.
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print("answer " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
