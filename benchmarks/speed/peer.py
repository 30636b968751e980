"""The peer: diffusers' DiT in PyTorch, as a process of its own: one JSON line is one run.

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
    """The same width, depth, heads and tokens as ours."""
    model: Any = DiTTransformer2DModel(
        num_attention_heads=size["heads"],
        attention_head_dim=size["width"] // size["heads"],
        in_channels=size["channels"],
        out_channels=size["channels"],
        num_layers=size["depth"],
        sample_size=size["image"],
        patch_size=size["patch"],
        num_embeds_ada_norm=size["classes"],
    )
    return model.to(device)


def training(size: dict[str, Any], compiled: bool, dtype: torch.dtype, device: str) -> Callable[..., None]:
    """A flow-matching step with fused AdamW and an average of the weights."""
    model = network(size, device).train()
    average = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    shape = (size["batch"], size["channels"], size["image"], size["image"])
    data = torch.randn(shape, device=device)
    labels = torch.randint(size["classes"], shape[:1], device=device)
    forward = torch.compile(model) if compiled else model
    average_all: Any = torch._foreach_lerp_

    def step() -> None:
        noise, t = torch.randn_like(data), torch.rand(shape[0], device=device)
        x = torch.lerp(noise, data, t.view(-1, 1, 1, 1))
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            velocity = forward(x, timestep=1000 * t, class_labels=labels).sample
        torch.nn.functional.mse_loss(velocity.float(), data - noise).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            average_all(average, list(model.parameters()), 1e-3)

    return step


def sampling(size: dict[str, Any], compiled: bool, dtype: torch.dtype, device: str) -> Callable[..., None]:
    """`steps` Euler steps from noise, guided or not, as one call of twice the batch when guided."""
    model = network(size, device).eval().to(dtype)
    forward = torch.compile(model) if compiled else model
    shape = (size["batch"], size["channels"], size["image"], size["image"])
    copies = 2 if size["guided"] else 1
    labels = torch.zeros(copies * shape[0], dtype=torch.long, device=device)

    @torch.inference_mode()
    def draw(steps: int = 1) -> None:
        x = torch.randn(shape, device=device, dtype=dtype)
        for i in range(steps):
            t = torch.full(labels.shape, 1000 * i / steps, device=device)
            velocity = forward(torch.cat([x] * copies), timestep=t, class_labels=labels).sample
            if copies == 2:
                labelled, null = velocity.chunk(2)
                velocity = null + 1.5 * (labelled - null)
            x = x + velocity / steps
        x.float().cpu()

    return draw


def main() -> None:
    """Make what the first argument describes at the first line; run it as every line asks, and say its seconds."""
    asked = json.loads(sys.argv[1])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # On a GPU, JAX multiplies float32 in TF32 unless told otherwise, and so does PyTorch then.
    torch.set_float32_matmul_precision("high" if device == "cuda" else "highest")
    run = None
    for line in sys.stdin:
        try:
            make = {"step": training, "sample": sampling}[asked["kind"]]
            run = run or make(asked, asked["compiled"], getattr(torch, asked["dtype"]), device)
            began = time.perf_counter()
            run(**json.loads(line))
            if device == "cuda":
                torch.cuda.synchronize()
            answer: dict[str, Any] = {"seconds": time.perf_counter() - began, "torch": torch.__version__}
            answer |= {"peak": torch.cuda.max_memory_allocated()} if device == "cuda" else {}
        except Exception as error:  # Whatever keeps a peer from running belongs into its row.
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print("answer " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
