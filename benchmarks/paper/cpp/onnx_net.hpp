// A network in ONNX whose first output is a label for each row, on one thread.
#pragma once

#include <onnxruntime/onnxruntime_cxx_api.h>

#include <cstdint>
#include <string>
#include <vector>

class Net {
 public:
  static constexpr int64_t width = 784;

  explicit Net(const std::string& path) : session_(env_, path.c_str(), one_thread()) {
    Ort::AllocatorWithDefaultOptions allocator;
    input_ = session_.GetInputNameAllocated(0, allocator).get();
    output_ = session_.GetOutputNameAllocated(0, allocator).get();
  }

  // The label of each row of `pixels`, of which there are a multiple of `width`.
  std::vector<int64_t> labels(std::vector<float>& pixels) {
    const int64_t shape[] = {static_cast<int64_t>(pixels.size()) / width, width};
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto input = Ort::Value::CreateTensor<float>(memory, pixels.data(), pixels.size(), shape, 2);
    const char* inputs[] = {input_.c_str()};
    const char* outputs[] = {output_.c_str()};
    auto answers = session_.Run(Ort::RunOptions{}, inputs, &input, 1, outputs, 1);
    const int64_t* found = answers[0].GetTensorData<int64_t>();
    return std::vector<int64_t>(found, found + shape[0]);
  }

 private:
  static Ort::SessionOptions one_thread() {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    options.SetInterOpNumThreads(1);
    return options;
  }

  Ort::Env env_;
  Ort::Session session_;
  std::string input_, output_;
};
