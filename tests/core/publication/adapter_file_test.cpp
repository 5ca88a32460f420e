#include "core/publication/adapter_file.h"

#include <ATen/ATen.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/model/transformer.h"
#include "tests/core/publication/damage.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

namespace fs = std::filesystem;
using testing::data_error;
using testing::header_end;
using testing::replace;
using testing::TempDir;

namespace {

LoraConfig small(std::vector<std::string> targets = {kAllLinear}) {
  return {.rank = 3, .alpha = 5, .targets = std::move(targets)};
}

/// An adapter whose B is not 0.
LoraAdapter busy_adapter(const ModelConfig& config,
                         const LoraConfig& lora = small(),
                         uint64_t seed = 7) {
  LoraAdapter out = LoraAdapter::make(config, lora, {.job_seed = 3});
  RandomStream stream = testing::stream(seed);
  for (const LoraAdapter::Module& module : out.modules()) {
    for (int64_t i = 0; i < module.b.numel(); ++i)
      module.b.mutable_data_ptr<float>()[i] = static_cast<float>(0.3 * stream.normal());
  }
  return out;
}

AdapterBase base_of(const WrittenWeights& written) {
  return {
      .digest = written.digest, .bytes = written.bytes, .file = written.file.filename().string()};
}

/// A base that was published, and what was written of it.
struct Published {
  explicit Published(ModelConfig config = testing::tiny_config(), at::ScalarType dtype = at::kFloat)
      : model(std::move(config), testing::stream(3), dtype),
        written(write_weight_file(dir / "base", {.stage = 1}, model)) {}

  WrittenWeights publish(const LoraAdapter& adapter, int64_t step = 1) const {
    return write_adapter_file(dir.path(), {.stage = 1, .step = step}, adapter, base_of(written));
  }

  TempDir dir;
  Transformer model;
  WrittenWeights written;
};

}  // namespace

TEST_CASE("base and adapter give the merged weights bit for bit", "[core][cpu]") {
  const at::ScalarType dtype = GENERATE(at::kFloat, at::kBFloat16);
  const bool tied = GENERATE(false, true);
  ModelConfig config = testing::tiny_config();
  config.tie_embeddings = tied;
  const Published base(config, dtype);
  const WeightFile weights = WeightFile::open(base.written.file);
  Transformer model = weights.make_model();
  const void* storage = model.parameters()[1].tensor.const_data_ptr();
  for (const uint64_t seed : {1, 2, 1}) {
    const LoraAdapter adapter = busy_adapter(config, small({"q_proj", "mlp.down_proj"}), seed);
    const WrittenWeights written = base.publish(adapter);
    CHECK(written.bytes == static_cast<int64_t>(fs::file_size(written.file)));
    const AdapterFile file = AdapterFile::open(written.file, written.digest);
    CHECK(file.stamp() == WeightStamp{1, 0, 1});
    CHECK(file.base().digest == base.written.digest);
    CHECK(file.base().bytes == base.written.bytes);
    CHECK(file.base().file == base.written.file.filename().string());
    CHECK(file.config() == adapter.config());
    // Of the base each time, whatever was merged before.
    weights.apply(file.adapter(weights), model);
    CHECK(model.digest() == adapter.merged(base.model).digest());
    CHECK(model.digest() != base.model.digest());
  }
  CHECK(model.parameters()[1].tensor.const_data_ptr() == storage);
}

TEST_CASE("the digest of an adapter is of its base, its settings and its tensors", "[core][cpu]") {
  const Published base;
  const ModelConfig& config = base.model.config();
  const LoraAdapter adapter = busy_adapter(config);
  const std::string digest = base.publish(adapter, 1).digest;
  CHECK(base.publish(adapter.clone(), 9).digest == digest);
  AdapterBase moved = base_of(base.written);
  moved.file = "elsewhere";
  const auto write = [&](const LoraAdapter& of, const AdapterBase& beside) {
    return write_adapter_file(base.dir.path(), {}, of, beside).digest;
  };
  CHECK(write(adapter, moved) == digest);
  AdapterBase other = base_of(base.written);
  other.digest = std::string(64, 'a');
  CHECK(write(adapter, other) != digest);
  LoraConfig stronger = adapter.config();
  stronger.alpha *= 2;
  CHECK(write(LoraAdapter(config, stronger, adapter.modules()), moved) != digest);
  CHECK(write(busy_adapter(config, small(), 8), moved) != digest);
}

TEST_CASE("an adapter beside other weights is refused, and says which are its own", "[core][cpu]") {
  const Published base;
  const WrittenWeights written = base.publish(busy_adapter(base.model.config()));
  const AdapterFile file = AdapterFile::open(written.file);
  const WrittenWeights other = write_weight_file(base.dir / "other", {}, testing::tiny_model(5));
  const std::string message = data_error([&] { (void)file.adapter(WeightFile::open(other.file)); });
  CHECK(message == written.file.string() + ": is an adapter beside the weights with digest " +
                       base.written.digest + " (" + base.written.file.filename().string() +
                       "), not beside those of " + other.file.string() + " with digest " +
                       other.digest + "; start the learners again, which publish both anew");
  // One kind of file in the other's place.
  CHECK(data_error([&] { WeightFile::open(written.file); }) ==
        written.file.string() + ": holds an adapter alone, where whole weights are wanted");
  CHECK(data_error([&] { AdapterFile::open(other.file); }) ==
        other.file.string() + ": holds whole weights, where an adapter is wanted");
  // Of another shape under the base's name.
  ModelConfig wide = testing::tiny_config();
  wide.intermediate_size *= 2;
  const WrittenWeights misfit = base.publish(busy_adapter(wide));
  CHECK_THAT(data_error([&] {
               (void)AdapterFile::open(misfit.file).adapter(WeightFile::open(base.written.file));
             }),
             Catch::StartsWith(misfit.file.string()) && Catch::Contains("A is"));
  CHECK_THROWS_AS(write_adapter_file(base.dir.path(), {}, busy_adapter(wide), {}), InvalidArgument);
}

TEST_CASE("a flipped bit of an adapter's file is found", "[core][cpu]") {
  const Published base;
  const LoraAdapter adapter = busy_adapter(base.model.config(), small({"q_proj"}));
  const WrittenWeights written = base.publish(adapter);
  const WeightFile weights = WeightFile::open(base.written.file);
  const std::string bytes = read_file(written.file);
  const fs::path damaged = base.dir / "damaged";
  replace(damaged, bytes);
  std::fstream file(damaged, std::ios::binary | std::ios::in | std::ios::out);
  const auto put = [&](size_t at, char byte) {
    file.seekp(static_cast<std::streamoff>(at)).put(byte).flush();
  };
  for (size_t at = 0; at < bytes.size(); at += at < header_end(bytes) ? 1 : 7) {
    const char changed = static_cast<char>(bytes[at] ^ (1 << (at * 5 % 8)));
    put(at, changed);
    INFO("byte " << at << " '" << bytes[at] << "' made '" << changed << "'");
    const std::string message =
        data_error([&] { (void)AdapterFile::open(damaged).adapter(weights); });
    REQUIRE(message.find(damaged.string() + ": ") == 0);
    put(at, bytes[at]);
  }
  CHECK_NOTHROW(AdapterFile::open(damaged, written.digest).adapter(weights));
  const std::string other(64, 'b');
  CHECK_THAT(data_error([&] { AdapterFile::open(written.file, other); }),
             Catch::Contains("those with " + other + " are wanted"));
}

TEST_CASE("an equal file stays, so that whoever has it mapped reads on", "[core][cpu]") {
  const Published base;
  const auto write = [&](bool keep) {
    const WrittenWeights again =
        write_weight_file(base.dir / "base", {.stage = 1}, base.model, {.keep_equal = keep});
    CHECK(again.file == base.written.file);
    CHECK(again.digest == base.written.digest);
  };
  const fs::path link = base.dir / "link";
  fs::create_hard_link(base.written.file, link);
  write(true);
  CHECK(fs::equivalent(base.written.file, link));
  write(false);
  CHECK_FALSE(fs::equivalent(base.written.file, link));
  // A damaged one is replaced.
  std::string bytes = read_file(link);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  replace(base.written.file, bytes);
  write(true);
  CHECK_NOTHROW(WeightFile::open(base.written.file).verify());
  CHECK(std::distance(fs::directory_iterator(base.dir / "base"), {}) == 1);
}

}  // namespace praetor
