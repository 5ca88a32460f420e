#include "core/publication/weight_file.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <signal.h>
#include <sys/resource.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
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

/// Smaller than tiny_config(): a file of it is flipped bit by bit.
ModelConfig small_config() {
  ModelConfig config = testing::tiny_config();
  config.num_layers = 1;
  config.vocab_size = 8;
  config.hidden_size = 8;
  config.intermediate_size = 8;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 4;
  return config;
}

Transformer small_model(uint64_t seed, at::ScalarType dtype = at::kFloat) {
  return Transformer(small_config(), testing::stream(seed), dtype);
}

/// Bit for bit; a NaN counts as itself.
bool same_bits(const Transformer& a, const Transformer& b) {
  return a.digest() == b.digest();
}

}  // namespace

TEST_CASE("published weights come back bit for bit", "[core][cpu]") {
  const TempDir folder;
  const at::ScalarType dtype = GENERATE(at::kFloat, at::kBFloat16);
  const int threads = GENERATE(1, 3);
  const Transformer model(testing::tiny_config(), testing::stream(3), dtype);
  model.parameters()[0].tensor.view({-1})[0].fill_(NAN);

  const WeightStamp stamp{2, 1, 12};
  const WrittenWeights written =
      write_weight_file(folder / "weights", stamp, model, {threads, true});
  CHECK(written.file.filename().string() ==
        "stage-2-lineage-1-step-000012-" + written.digest.substr(0, 16) + ".safetensors");
  CHECK(written.bytes == static_cast<int64_t>(fs::file_size(written.file)));
  CHECK(std::distance(fs::directory_iterator(folder / "weights"), {}) == 1);

  const WeightFile file = WeightFile::open(written.file, written.digest);
  CHECK(file.stamp() == stamp);
  CHECK(file.digest() == written.digest);
  CHECK(file.dtype() == dtype);
  CHECK(file.config().to_json() == model.config().to_json());
  file.verify(threads);
  CHECK(same_bits(file.make_model(), model));

  Transformer other(testing::tiny_config(), testing::stream(4), dtype);
  other.set_requires_grad(true);
  const void* storage = other.parameters()[1].tensor.const_data_ptr();
  file.apply(other, threads);
  CHECK(same_bits(other, model));
  CHECK(other.parameters()[1].tensor.const_data_ptr() == storage);
  CHECK(other.parameters()[1].tensor.requires_grad());
  // A plain safetensors file for everybody else.
  CHECK(SafetensorsFile(written.file).names().size() == model.parameters().size());
}

TEST_CASE("a tied model is published without its head and shares it again", "[core][cpu]") {
  const TempDir folder;
  ModelConfig config = small_config();
  config.tie_embeddings = true;
  const Transformer model(config, testing::stream(1));
  const auto written = write_weight_file(folder.path(), {}, model);
  const Transformer back = WeightFile::open(written.file).make_model();
  CHECK(back.head().weight.is_same(back.parameters()[0].tensor));
  CHECK(same_bits(back, model));
}

TEST_CASE("the digest is of the weights and the config alone", "[core][cpu]") {
  const TempDir folder;
  const std::string digest = write_weight_file(folder.path(), {0, 0, 1}, small_model(1)).digest;
  CHECK(digest.size() == 64);
  CHECK(write_weight_file(folder.path(), {3, 2, 9}, small_model(1)).digest == digest);
  CHECK(write_weight_file(folder.path(), {0, 0, 1}, small_model(2)).digest != digest);
  CHECK(write_weight_file(folder.path(), {0, 0, 1}, small_model(1, at::kBFloat16)).digest !=
        digest);
  ModelConfig config = small_config();
  config.rope.theta = 5000;
  const Transformer turned(config, testing::stream(1));
  CHECK(write_weight_file(folder.path(), {0, 0, 1}, turned).digest != digest);
}

TEST_CASE("new weights reach the packed form of the old ones", "[core][cpu]") {
  const TempDir folder;
  const Transformer trained = testing::tiny_model(2);
  Transformer model = testing::tiny_model(1);
  const std::vector<int64_t> tokens = {1, 5, 7, 2};
  const auto logits = [&](const Transformer& of) { return of.logits(of.hidden(pack({tokens}))); };
  const c10::NoGradGuard no_grad;
  CHECK_FALSE(at::equal(logits(model), logits(trained)));
  WeightFile::open(write_weight_file(folder.path(), {}, trained).file).apply(model);
  CHECK(at::equal(logits(model), logits(trained)));
}

TEST_CASE("a flipped bit of a tensor is found, and the tensor named", "[core][cpu]") {
  const TempDir folder;
  const Transformer model = small_model(1);
  const fs::path written = write_weight_file(folder.path(), {}, model).file;
  const std::string bytes = read_file(written);
  const fs::path damaged = folder / "damaged";
  Transformer other = small_model(2);
  const std::string before = other.digest();
  for (const NamedTensor& named : model.parameters()) {
    const auto* begin = static_cast<const char*>(named.tensor.const_data_ptr());
    const size_t at = bytes.find(std::string(begin, named.tensor.nbytes()), header_end(bytes));
    REQUIRE(at != bytes.npos);
    for (const size_t offset : {size_t{0}, named.tensor.nbytes() / 2, named.tensor.nbytes() - 1}) {
      std::string changed = bytes;
      changed[at + offset] = static_cast<char>(changed[at + offset] ^ (1 << (offset % 8)));
      // The norms are alike, so that their places are found for the first of them alone.
      replace(damaged, changed);
      const WeightFile file = WeightFile::open(damaged);
      const std::string message = data_error([&] { file.verify(2); });
      CHECK(message.find(damaged.string() + ": tensor \"") == 0);
      if (named.name.find("norm") == std::string::npos)
        CHECK(message.find('"' + named.name + "\": its bytes have SHA-256 ") != message.npos);
      CHECK(data_error([&] { file.make_model(); }) == message);
      CHECK(data_error([&] { file.apply(other); }) == message);
    }
  }
  CHECK(other.digest() == before);
}

TEST_CASE("a flipped bit anywhere in the header is refused at opening", "[core][cpu]") {
  const TempDir folder;
  const WrittenWeights written = write_weight_file(folder.path(), {1, 2, 3}, small_model(1));
  const std::string bytes = read_file(written.file);
  const fs::path damaged = folder / "damaged";
  replace(damaged, bytes);
  std::fstream file(damaged, std::ios::binary | std::ios::in | std::ios::out);
  const auto put = [&](size_t at, char byte) {
    file.seekp(static_cast<std::streamoff>(at)).put(byte).flush();
  };
  for (size_t at = 0; at < header_end(bytes); ++at) {
    const char changed = static_cast<char>(bytes[at] ^ (1 << (at * 5 % 8)));
    put(at, changed);
    INFO("byte " << at << " '" << bytes[at] << "' made '" << changed << "'");
    // Two tensors of one size may be named for one another's place: their bytes then tell.
    const std::string message = data_error([&] { WeightFile::open(damaged).verify(1); });
    REQUIRE(message.find(damaged.string() + ": ") == 0);
    put(at, bytes[at]);
  }
  WeightFile::open(damaged).verify();
}

TEST_CASE("a header that was edited is refused with what was edited", "[core][cpu]") {
  const TempDir folder;
  const WrittenWeights written = write_weight_file(folder.path(), {1, 2, 3}, small_model(1));
  const std::string bytes = read_file(written.file);
  const fs::path damaged = folder / "damaged";
  const auto with = [&](const std::string& from, const std::string& to) {
    REQUIRE(from.size() == to.size());
    const size_t at = bytes.find(from);
    REQUIRE(at != bytes.npos);
    std::string changed = bytes;
    changed.replace(at, from.size(), to);
    replace(damaged, changed);
    return data_error([&] { WeightFile::open(damaged); });
  };
  CHECK_THAT(with("\"step\":\"3\"", "\"step\":\"4\""), Catch::Contains("step 4 and digest do not"));
  CHECK_THAT(with("\"step\":\"3\"", "\"step\":\"-\""), Catch::Contains("is not a whole number"));
  CHECK_THAT(with("\"lineage\":\"2\"", "\"lineage\":\"0\""), Catch::Contains("seal"));
  CHECK_THAT(with("sha256:lm_head", "sha256:lm_heaD"),
             Catch::Contains("has no metadata \"sha256:lm_head.weight\""));
  CHECK_THAT(with("praetor.weights\":\"1", "praetor.weights\":\"2"),
             Catch::Contains("format version \"2\""));
  CHECK_THAT(with("10000.0", "20000.0"), Catch::Contains("the header was changed"));
  CHECK_THAT(with("\"digest\":\"" + written.digest, "\"digest\":\"" + std::string(64, 'a')),
             Catch::Contains(written.digest));
  const std::string other(64, 'b');
  CHECK(data_error([&] { WeightFile::open(written.file, other); }) ==
        written.file.string() + ": holds the weights with digest " + written.digest +
            ", those with " + other + " are wanted");
}

TEST_CASE("a file that is cut, or is something else, is refused", "[core][cpu]") {
  const TempDir folder;
  const fs::path written = write_weight_file(folder.path(), {}, small_model(1)).file;
  const std::string bytes = read_file(written);
  const fs::path damaged = folder / "damaged";
  for (const size_t size :
       {size_t{0}, size_t{7}, size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    replace(damaged, bytes.substr(0, size));
    CHECK(data_error([&] { WeightFile::open(damaged); }).find(damaged.string()) == 0);
  }
  write_safetensors(damaged, small_model(1).parameters());
  CHECK_THAT(data_error([&] { WeightFile::open(damaged); }),
             Catch::Contains("is not a file of published weights"));
  CHECK_THROWS_AS(WeightFile::open(folder / "absent"), MissingInput);
}

TEST_CASE("weights that do not fit a model leave it as it was", "[core][cpu]") {
  const TempDir folder;
  const WeightFile file =
      WeightFile::open(write_weight_file(folder.path(), {}, small_model(1)).file);
  const auto refusal = [&](Transformer model) {
    const std::string before = model.digest();
    const std::string message = data_error([&] { file.apply(model); });
    CHECK(model.digest() == before);
    return message;
  };
  ModelConfig config = small_config();
  config.intermediate_size = 16;  // the first tensors fit
  CHECK_THAT(refusal(Transformer(config, testing::stream(2))),
             Catch::Contains("tensor \"model.layers.0.mlp.gate_proj.weight\" is F32 [8, 8], the "
                             "model to take it has F32 [16, 8]"));
  config = small_config();
  config.num_layers = 2;
  CHECK_THAT(refusal(Transformer(config, testing::stream(2))),
             Catch::Contains("has 12 tensors, the model to take them has 21"));
  CHECK_THAT(refusal(small_model(2, at::kBFloat16)), Catch::Contains("has BF16 [8, 8]"));
}

TEST_CASE("a model without a language head is not published", "[core][cpu]") {
  const TempDir folder;
  const ScalarModel scalar =
      ScalarModel::load(testing::golden("models/classifier"), testing::stream(1));
  CHECK_THROWS_AS(write_weight_file(folder / "none", {}, scalar.backbone), InvalidArgument);
  CHECK_FALSE(fs::exists(folder / "none"));
}

TEST_CASE("weights that cannot be written leave nothing behind", "[core][cpu]") {
  const TempDir folder;
  replace(folder / "file", "in the way");
  CHECK_THROWS_AS(write_weight_file(folder / "file", {}, small_model(1)), IoError);
  CHECK_THROWS_AS(write_weight_file(folder.path(), {0, 0, -1}, small_model(1)), InvalidArgument);
  CHECK(std::distance(fs::directory_iterator(folder.path()), {}) == 1);
}

TEST_CASE("a full disk is an error, and no part of the file stays", "[core][cpu]") {
  const TempDir folder;
  const Transformer model = small_model(1);
  // A limit on the size of files fails a write as a full disk does.
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1000, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  std::string message;
  try {
    write_weight_file(folder.path(), {}, model, {2});
  } catch (const IoError& failure) {
    message = failure.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  CHECK_THAT(message, Catch::StartsWith("cannot write " + folder.path().string()));
  CHECK(fs::is_empty(folder.path()));
}

TEST_CASE("readers go on while new versions are written and old ones removed", "[core][cpu]") {
  const TempDir folder;
  constexpr int64_t kSteps = 30;
  std::vector<std::string> digests;
  for (uint64_t step = 0; step < kSteps; ++step) digests.push_back(small_model(step).digest());
  std::atomic<bool> done = false;
  std::atomic<int64_t> reads = 0;
  std::vector<std::string> problems(2);
  std::vector<std::thread> readers;
  for (std::string& problem : problems) {
    readers.emplace_back([&] {
      Transformer model = small_model(0);
      try {
        while (!done || reads == 0) {
          std::error_code gone;
          for (const auto& entry : fs::directory_iterator(folder.path(), gone)) {
            if (entry.path().extension() != ".safetensors") continue;
            try {
              const WeightFile file = WeightFile::open(entry.path());
              file.apply(model, 1);
              if (model.digest() != digests.at(static_cast<size_t>(file.stamp().step)))
                problem = "another step's weights";
              ++reads;
            } catch (const MissingInput&) {
              // removed before it was opened
            }
          }
        }
      } catch (const std::exception& failure) {
        problem = failure.what();
      }
    });
  }
  for (int64_t step = 0; step < kSteps; ++step) {
    write_weight_file(folder.path(), {0, 0, step}, small_model(static_cast<uint64_t>(step)), {2});
    keep_newest(folder.path(), 0, 2);
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(reads > 0);
  for (const std::string& problem : problems) CHECK(problem.empty());
}

}  // namespace praetor
