#include "actors/train/publisher.h"

#include "actors/rpc/weight_stream.h"
#include "core/model/transformer.h"
#include "core/publication/weight_file.h"

namespace praetor {

namespace {

constexpr int64_t kVersionsKept = 2;

}  // namespace

Publisher::Publisher(const PublishConfig& config,
                     const std::filesystem::path& run_dir,
                     const ServeOptions& serve)
    : folder_(config.folder.empty() ? run_dir / "weights" : config.folder / run_dir.filename()),
      offers_file_(config.via != "stream") {
  if (config.via != "file") server_ = std::make_unique<WeightServer>(serve);
}

Publisher::~Publisher() {
  // Whoever maps a file goes on reading it; nobody will ask for one again.
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

Publisher::Published Publisher::publish(uint32_t stage,
                                        int64_t lineage,
                                        int64_t step,
                                        const Transformer& policy) {
  const auto begin = std::chrono::steady_clock::now();
  const WrittenWeights written =
      write_weight_file(folder_, {.stage = stage, .lineage = lineage, .step = step}, policy);
  Published out;
  out.publication = {
      .version = {.stage = stage, .lineage = lineage, .step = step, .digest = written.digest},
      .bytes = written.bytes};
  if (offers_file_) out.publication.file = std::filesystem::absolute(written.file).string();
  if (server_) {
    server_->set_file(out.publication.version, written.file);
    out.publication.address = server_->address();
  }
  keep_newest(folder_, stage, kVersionsKept);
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return out;
}

}  // namespace praetor
