#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/DeviceGuard.h>

#include <cstddef>

namespace praetor {

/// Memory for `bytes` behind the tensors of a storage, on their device; 0: none. What was there is
/// gone.
inline void resize_storage(const at::Tensor& tensor, size_t bytes) {
  const c10::OptionalDeviceGuard here(tensor.device());
  c10::StorageImpl* const storage = tensor.storage().unsafeGetStorageImpl();
  storage->set_data_ptr_noswap(c10::GetAllocator(tensor.device().type())->allocate(bytes));
  storage->set_nbytes(bytes);
}

}  // namespace praetor
