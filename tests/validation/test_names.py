"""Spellings of devices, models, engines and formats that tables use mean what they say, or nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from simulator.errors import UnknownNameError
from simulator.mapping.machine import load_machine
from simulator.predict import predict
from simulator.scenario import load_model
from validation.devicenames import find_device, take_apart
from validation.formats import cache_format, weight_format
from validation.modelnames import find_model, stated_format
from validation.rows import Unresolved, find_engine, resolve_row

HERE = Path(__file__).parent
ROW = {"source": "test", "model": "Llama-2-7B", "hardware": "A100", "framework": "vLLM", "batch": 1, "input_len": 128,
       "output_len": 32}  # fmt: skip


def table(name: str) -> list[tuple[str, str]]:
    """Name -> file; `-` for none."""
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return [(row[0], row[1]) for row in list(csv.reader(file))[1:]]


@pytest.mark.parametrize(("name", "device"), table("device_names.csv"))
def test_devices(name: str, device: str) -> None:
    if device == "-":
        with pytest.raises(UnknownNameError):
            find_device(name)
    else:
        assert find_device(name) == device


@pytest.mark.parametrize(("name", "model"), table("model_names.csv"))
def test_models(name: str, model: str) -> None:
    if model == "-":
        with pytest.raises(UnknownNameError):
            find_model(name)
    else:
        assert find_model(name) == model


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("Framework Mainboard (128GB)", "ryzen-ai-max-395-cpu"),
        ("Jetson AGX Orin", "jetson-agx-orin-64gb-cpu"),
        ("M2-Ultra", "apple-m2-ultra-cpu"),
        ("Ryzen 9 7950X (Nvidia 4080)", "ryzen-9-7950x"),
        ("GMKtek G3 Plus (Intel N150) - 16GB", "intel-n150"),
        ("Raspberry Pi 5", "raspberry-pi-5"),
    ],
)
def test_cpus_alone(name: str, device: str) -> None:
    assert find_device(name, on_cpu=True) == device
    assert all(unit.kind != "matrix" for unit in load_machine(device).units)


@pytest.mark.parametrize("name", ["H100", "M3 Max", "Ryzen 9 7900X (Nvidia 4090)"])
def test_a_cpu_that_no_file_has_is_not_another_unit(name: str) -> None:
    with pytest.raises(UnknownNameError):
        find_device(name, on_cpu=True)


def test_what_a_name_states() -> None:
    found = take_apart("Apple M2 Max (12-core CPU, 38-core GPU, 96GB)")
    assert (found.key, found.gpu_cores, found.gigabytes) == ("m2max", 38, 96.0)
    assert take_apart("H100 PCIe 80 GB (350 W)").form == "pcie"


@pytest.mark.parametrize(
    ("framework", "engine"),
    [
        ("vLLM 0.6.3", "vllm-v0"), ("vllm-rocm 0.4", "vllm-v0"), ("TGI 2.0", "tgi"), ("LMDeploy 0.6", "lmdeploy"),
        ("TurboMind", "lmdeploy"), ("ExLlama V2", "exllamav2"), ("exllama", "exllama"), ("MLC-LLM", "mlc-llm"),
        ("MLC LLM 2023", "mlc-llm-2023"), ("ONNX Runtime GenAI", "onnxruntime"), ("OpenVINO 2024.1", "openvino"),
        ("Ollama 0.3", "llama.cpp"), ("llama.cpp (CUDA)", "llama.cpp"), ("llama-cpp-python", "llama.cpp"),
        ("HF Transformers + bitsandbytes", "hf"), ("PyTorch 2.1 eager", "hf-2023"), ("PyTorch 2.4 eager", "hf"),
        ("Hugging Face (2023)", "hf-2023"), ("optimum-habana", "optimum-habana"), ("T-MAC (CPU)", "t-mac"),
        ("rknn-llm", "rknn-llm"), ("Jetpack 6.0, TensorRT 10.1, CUDA 12.2", "tensorrt-llm"), ("mlx-lm 0.20", "mlx"),
        ("DeepSpeed MII 0.2", "deepspeed"), ("SambaNova Cloud", "native"), ("TinyChat", "tinychat"),
    ],
)  # fmt: skip
def test_engines(framework: str, engine: str) -> None:
    assert find_engine(framework) == engine


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("Q4_K_M (ollama default)", 4.85), ("EXL2 4.0 bpw", 4.0), ("3.5bpw", 3.5), ("IQ4_XS", 4.25), ("W4A16", 4.16),
        ("awq", 4.16), ("GPTQ-Int4", 4.16), ("int8 weight-only", 8.0), ("fp8_e4m3", 8.0), ("nf4", 4.13), ("w8a8", 8.0),
        ("q4f16_1", 4.5), ("bf16", 16.0), ("fp32", 32.0),
    ],
)  # fmt: skip
def test_formats(name: str, bits: float) -> None:
    techniques = weight_format(name).techniques
    scenario = resolve_row({**ROW, "weight_dtype": name}).scenario
    assert scenario.techniques == techniques
    stored, plain = predict(scenario).weight_bytes, predict(resolve_row(ROW).scenario).weight_bytes
    ends = 2 * 32000 * 4096  # elements of embedding and head, which stay as they are, or all but the embedding
    wide = 4 if bits > 16 else 2
    expected = [(plain - 2 * kept) * bits / 16 + kept * wide for kept in (ends, ends / 2)]
    assert min(abs(stored / value - 1.0) for value in expected) < 0.02


def test_inputs_have_four_bits_where_the_device_multiplies_them() -> None:
    def prompt_s(hardware: str, dtype: str) -> float:
        row = {**ROW, "hardware": hardware, "weight_dtype": dtype, "input_len": 4096, "batch": 4}
        return predict(resolve_row(row).scenario).ttft_s

    assert prompt_s("B200", "nvfp4") < prompt_s("B200", "fp8")
    assert prompt_s("H100", "nvfp4") > prompt_s("H100", "fp8")
    assert prompt_s("B200", "w4a16_nvfp4") > prompt_s("B200", "nvfp4")


def test_formats_that_nothing_is_known_of_are_refused() -> None:
    assert weight_format("posit8").refusal == "number format 'posit8'"
    assert weight_format("99 bpw").refusal
    with pytest.raises(KeyError):
        cache_format("posit8")


@pytest.mark.parametrize(
    ("model", "stated"),
    [
        ("TheBloke/Llama-2-7B-GPTQ", "int4-gptq"), ("Qwen2.5-72B-Instruct-AWQ", "int4-awq"),
        ("llama-2-7b.Q4_0.gguf", "q4_0"), ("nvidia/Llama-3.1-405B-Instruct-FP4", "nvfp4"),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8", "fp8"), ("meta-llama/Llama-2-7b-hf", ""),
    ],
)  # fmt: skip
def test_formats_that_a_checkpoint_states(model: str, stated: str) -> None:
    assert stated_format(model) == stated
    if stated:
        assert weight_format(stated).techniques


def test_a_column_stands_above_what_the_name_states() -> None:
    named = resolve_row({**ROW, "model": "Qwen2.5-7B-Instruct-AWQ"})
    assert named.scenario.techniques == ("weight-int4",)
    assert load_model(named.scenario.model).name == load_model("qwen2.5-7b").name
    assert resolve_row({**ROW, "model": "Qwen2.5-7B-Instruct-AWQ", "weight_dtype": "fp16"}).scenario.techniques == ()


def test_reasons_of_what_is_unknown() -> None:
    for column, name, words in (("hardware", "RTX 4090 16GB", "unknown hardware"), ("model", "Llama-9-7B", "unknown model"),
                                ("framework", "Abacus", "unknown engine")):  # fmt: skip
        with pytest.raises(Unresolved, match=words):
            resolve_row({**ROW, column: name})
    with pytest.raises(Unresolved, match="its CPU alone"):
        resolve_row({**ROW, "hardware": "H100", "framework": "llama.cpp (CPU)"})
