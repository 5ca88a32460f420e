// The table of the including source; included last by scalar.cpp, avx2.cpp and avx512.cpp alone.
#pragma once

#include "core/model/kernels/body_products.h"
#include "core/model/kernels/body_rows.h"

namespace praetor::ops::kernels {
namespace {

const Table kTable = {kName,
                      kTileRows,
                      pack_rows,
                      product_switch<kTileRows, float>,
                      product_switch<kTileRows, uint16_t>,
                      product_switch<kTileRows, int8_t>,
                      scores_switch<kTileRows>,
                      transpose,
                      weigh_switch<6>,
                      softmax,
                      softmax_backward,
                      log_sum,
                      rms_norm,
                      layer_norm,
                      swiglu,
                      gelu,
                      softcap,
                      rope,
                      rms_norm_backward,
                      swiglu_backward,
                      gelu_backward};

}  // namespace
}  // namespace praetor::ops::kernels
