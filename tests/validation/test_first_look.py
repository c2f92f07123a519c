"""The default parameters stay as good as they were found to be on a few well-known measurements."""

from __future__ import annotations

from validation.first_look import compare, mean_errors


def test_mean_errors_stay_within_their_targets() -> None:
    errors = mean_errors(compare())
    assert len(errors) == 5
    assert errors["trtllm_docs, A100, TensorRT-LLM"] <= 0.12
    decode = {group: error for group, error in errors.items() if group.startswith("argonne")}
    assert len(decode) == 4
    assert max(decode.values()) <= 0.15, decode


def test_measurements_are_not_below_the_speed_of_light() -> None:
    from simulator.predict import predict
    from simulator.scenario import Scenario

    for _, row, _, measured in compare():
        if row["metric"] != "e2el_s":
            continue
        bound = predict(
            Scenario(
                row["model"],
                row["hardware"],
                batch=int(row["batch"]),
                input_tokens=int(row["input_len"]),
                output_tokens=int(row["output_len"]),
                engine="ideal",
            )
        )
        assert bound.e2el_s < measured
