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

template <typename Work>
void Optimizer::over_elements(const Work& work) const {
  struct Task {
    const Piece* piece;
    const at::Tensor* gradient;
    int64_t begin, end;
  };
  std::vector<at::Tensor> gradients(pieces_.size());
  std::vector<Task> tasks;
  int64_t elements = 0;
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const at::Tensor& weight = pieces_[i].weight;
    if (!weight.grad().defined()) continue;
    gradients[i] = weight.grad().contiguous();
    for (int64_t begin = 0; begin < weight.numel(); begin += kTaskElements) {
      const int64_t end = std::min(begin + kTaskElements, weight.numel());
      tasks.push_back({&pieces_[i], &gradients[i], begin, end});
    }
    elements += weight.numel();
  }
  constexpr int64_t kCost = 8;  // of an element, in multiply-adds
  ops::kernels::run_tasks(ops::kernels::threads_for(elements * kCost),
                          static_cast<int64_t>(tasks.size()),
                          [&](int64_t i) {
                            const Task& task = tasks[static_cast<size_t>(i)];
                            work(*task.piece, *task.gradient, task.begin, task.end);
                          });
}

}  // namespace praetor
