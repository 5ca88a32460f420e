#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/model/kernels/parallel.h"
#include "learners/optim/optimizer.h"

namespace praetor {

/// Elements of a task: enough to be worth a thread, few enough that a step of one large tensor is
/// shared.
constexpr int64_t kTaskElements = int64_t{1} << 16;

/// [begin, end) of the elements of a contiguous tensor, flat, without gradients.
inline at::Tensor elements_of(const at::Tensor& tensor, int64_t begin, int64_t end) {
  return tensor.detach().view(-1).narrow(0, begin, end - begin);
}

template <typename Work>
void Optimizer::over_elements(const Work& work, int64_t most) const {
  struct Task {
    const Piece* piece;
    const at::Tensor* gradient;
    int64_t begin, end;
  };
  std::vector<at::Tensor> gradients(pieces_.size());
  std::vector<Task> tasks;
  int64_t elements = 0;
  const auto add = [&](const Piece& piece, const at::Tensor& gradient, int64_t each) {
    for (int64_t begin = 0; begin < piece.weight.numel(); begin += each) {
      const int64_t end = std::min(begin + each, piece.weight.numel());
      tasks.push_back({&piece, &gradient, begin, end});
    }
    elements += piece.weight.numel();
  };
  const auto run = [&](bool on_cpu) {
    constexpr int64_t kCost = 8;  // of an element, in multiply-adds
    ops::kernels::run_tasks(on_cpu ? ops::kernels::threads_for(elements * kCost) : 1,
                            static_cast<int64_t>(tasks.size()),
                            [&](int64_t i) {
                              const Task& task = tasks[static_cast<size_t>(i)];
                              work(*task.piece, *task.gradient, task.begin, task.end);
                            });
    tasks.clear();
    elements = 0;
  };
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const Piece& piece = pieces_[i];
    if (!piece.weight.grad().defined()) continue;
    gradients[i] = piece.weight.grad().contiguous();
    if (piece.weight.is_cpu()) {
      add(piece, gradients[i], kTaskElements);
    } else if (!config_.offload) {
      add(piece, gradients[i], most);
      run(false);
    } else {
      const OffloadedPiece here(piece, gradients[i]);
      add(here.piece, here.gradient, kTaskElements);
      run(true);
      here.give_back(piece);
    }
  }
  run(true);
}

}  // namespace praetor
