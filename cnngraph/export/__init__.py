"""A network for other programs: ONNX, `torch.export`, OpenVINO, and plain Python."""
