#include "core/model/tensor_source.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <utility>

#include "core/base/error.h"

namespace praetor {

namespace {

class TensorsInMemory final : public TensorSource {
 public:
  explicit TensorsInMemory(std::vector<NamedTensor> tensors) : tensors_(std::move(tensors)) {
    for (const NamedTensor& t : tensors_)
      forms_.push_back({t.name, t.tensor.scalar_type(), t.tensor.sizes().vec()});
  }
  const std::vector<Form>& forms() const override { return forms_; }
  void read(size_t i, int64_t begin, int64_t end, const at::Tensor& to) const override {
    to.view(-1).copy_(tensors_[i].tensor.detach().reshape(-1).slice(0, begin, end));
  }

 private:
  std::vector<NamedTensor> tensors_;
  std::vector<Form> forms_;
};

class TensorsInFiles final : public TensorSource {
 public:
  explicit TensorsInFiles(std::vector<SafetensorsFile> files) : files_(std::move(files)) {
    for (const SafetensorsFile& file : files_) {
      for (const std::string& name : file.names()) {
        forms_.push_back({name, file.dtype(name), file.shape(name)});
        file_of_.push_back(&file);
      }
    }
  }
  const std::vector<Form>& forms() const override { return forms_; }
  void read(size_t i, int64_t begin, int64_t end, const at::Tensor& to) const override {
    constexpr int64_t kPieceBytes = int64_t{16} << 20;
    const at::Tensor from = file_of_[i]->tensor(forms_[i].name).view(-1), flat = to.view(-1);
    const int64_t piece = kPieceBytes / from.element_size();
    for (int64_t at = begin; at < end; at += piece) {
      const int64_t until = std::min(at + piece, end);
      flat.slice(0, at - begin, until - begin).copy_(from.slice(0, at, until));
      file_of_[i]->release(forms_[i].name);
    }
  }

 private:
  std::vector<SafetensorsFile> files_;
  std::vector<Form> forms_;
  std::vector<const SafetensorsFile*> file_of_;
};

}  // namespace

int64_t TensorSource::Form::numel() const {
  int64_t out = 1;
  for (const int64_t size : shape) out *= size;
  return out;
}

std::unique_ptr<TensorSource> make_tensor_source(std::vector<NamedTensor> tensors) {
  return std::make_unique<TensorsInMemory>(std::move(tensors));
}

std::unique_ptr<TensorSource> make_tensor_source(std::vector<SafetensorsFile> files) {
  return std::make_unique<TensorsInFiles>(std::move(files));
}

}  // namespace praetor
