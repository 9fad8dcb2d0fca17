"""How fast the kernels are on this machine, beside every other way to compute the same. First whether they are right.

    python -m kernels.bench                        all sections, about twelve minutes on two cores
    python -m kernels.bench --attention --out DIR  one of them; figures to DIR as JSON, a chart as PNG

Times of one machine say little about another; the ratios are what carries over.
"""

from pathlib import Path
from types import ModuleType

import torch

from common import Parser, UserError, run_script, write_json
from kernels import bench_attention, bench_clones, bench_evaluation, bench_loss, bench_step
from process import Process, bf16_helps

# A section has measure(device, dtype, rounds, seconds) -> dict that JSON can hold, report(dict) -> text, chart(dict, path).
SECTIONS: dict[str, ModuleType] = {
    "attention": bench_attention,
    "loss": bench_loss,
    "step": bench_step,
    "clones": bench_clones,
    "evaluation": bench_evaluation,
}
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def main(arguments: list[str] | None = None) -> None:
    """Measure the sections asked for, print them, and write them to --out."""
    parser = Parser(__doc__)
    for name, section in SECTIONS.items():
        parser.add_argument(f"--{name}", action="store_true", help=section.__doc__.splitlines()[0])
    parser.add_argument("--tune", action="store_true", help="try tiles of attention on this GPU instead, half an hour")
    parser.add_argument("--precision", choices=TYPES, help="of the inputs (bf16 where the chip multiplies it faster, else fp32)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="(cuda where there is one)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each variant (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.05, help="of a turn (%(default)s)")
    parser.add_argument("--out", type=Path, help="folder for SECTION.json and SECTION.png")
    args = parser.parse_args(arguments)
    if args.rounds < 1 or not 0 < args.seconds < 3600:
        parser.error(f"--rounds {args.rounds} --seconds {args.seconds:g}: expected at least 1, and above 0")
    process = Process.current(args.device)
    torch.use_deterministic_algorithms(False)  # PyTorch's backward passes are faster without, and measured at their best
    dtype = TYPES[args.precision or ("bf16" if bf16_helps(process.device) else "fp32")]
    print(f"{process.device_name()}, torch {torch.__version__}, {str(dtype).removeprefix('torch.')}")
    if args.tune:
        return tune(process.device, dtype, args.rounds, args.seconds)
    if process.device.type == "cpu":
        print("no GPU: the paths of a CPU are timed, and the Triton kernels, which need one, are not")
    wanted = [name for name in SECTIONS if getattr(args, name)] or list(SECTIONS)
    for name in wanted:
        facts = {"device": process.device_name(), "torch": torch.__version__, "dtype": str(dtype).removeprefix("torch.")}
        facts |= SECTIONS[name].measure(process.device, dtype, args.rounds, args.seconds)
        print(SECTIONS[name].report(facts))
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            write_json(args.out / f"{name}.json", facts)
            SECTIONS[name].chart(facts, args.out / f"{name}.png")
            print(f"written to {args.out}/{name}.json and {name}.png")


def tune(device: torch.device, dtype: torch.dtype, rounds: int, seconds: float) -> None:
    """Print the best tiles for every head dimension, as rows of SETTINGS.

    Raises:
        UserError: there is no GPU.
    """
    if device.type == "cpu":
        raise UserError("--tune: tiles are tried on a GPU, found none")
    from kernels import tune_attention

    for heads, head_dim in bench_attention.shapes().values():
        print(head_dim, tune_attention.tune((heads, head_dim), dtype, device, rounds, seconds))


if __name__ == "__main__":
    run_script(main)
