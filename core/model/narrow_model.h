#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>

#include "core/model/transformer.h"
#include "core/model/weight_kind.h"

/// Models for an engine's steps alone (engine_step.h), whose matrices exist in one kind of weights
/// and no other: float32 is there for one matrix at a time, while it is packed. Their parameters
/// have names, shapes and dtype as any model's, but those of the matrices no values: such a model
/// is not trained, scored, saved, copied or digested.
namespace praetor {

/// True for a parameter that engines multiply by, and that nothing else of a step reads: the weight
/// of a linear layer, or of a head that is not tied.
bool is_multiplied(const std::string& name);

/// What takes the place of `values` in such a model: for a matrix a tensor without memory whose
/// packed form they are, for others a copy. @param values  float32
at::Tensor narrowed(const std::string& name, const at::Tensor& values, WeightKind kind);
/// Other values of a parameter that `narrowed` made, in place.
void renew_narrowed(const NamedTensor& parameter, const at::Tensor& values);

/// As Transformer::load in float32, matrix by matrix. @param kind  not kFloat32; @throws likewise
Transformer load_narrow(const std::filesystem::path& folder, WeightKind kind);

/// @throws InvalidArgument when the model's matrices exist in another kind than `kind` alone
void check_has_kind(const Transformer& model, WeightKind kind);

}  // namespace praetor
