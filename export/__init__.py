"""Exporters: a QuantizedModel (or FloatModel) becomes a .tflite or .onnx file."""
