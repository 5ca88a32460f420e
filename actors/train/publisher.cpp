#include "actors/train/publisher.h"

#include "actors/rpc/weight_stream.h"
#include "actors/train/weight_caster.h"
#include "core/model/transformer.h"
#include "core/publication/weight_file.h"

namespace praetor {

namespace {

constexpr int64_t kVersionsKept = 2;

}  // namespace

Publisher::Publisher(const PublishConfig& config,
                     const std::filesystem::path& run_dir,
                     const ServeOptions& serve,
                     WeightCaster* caster)
    : folder_(config.folder_of(run_dir)), caster_(caster), offers_file_(config.via != "stream") {
  if (config.via != "file") server_ = std::make_unique<WeightServer>(serve);
}

Publisher::~Publisher() {
  // Whoever maps a file goes on reading it; nobody will ask for one again.
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

Publication Publisher::write(const std::filesystem::path& folder,
                             const WeightVersion& version,
                             const Transformer& model,
                             const Visit& visit) {
  WeightFileWriter file(
      folder, {.stage = version.stage, .lineage = version.lineage, .step = version.step}, model);
  visit(model, [&](std::span<const NamedTensor> tensors) { file.put(tensors); });
  const WrittenWeights written = file.commit();
  Publication out{.version = version, .bytes = written.bytes};
  out.version.digest = written.digest;
  if (offers_file_) out.file = std::filesystem::absolute(written.file).string();
  if (server_) {
    server_->set_file(out.version, written.file);
    out.address = server_->address();
  }
  keep_newest(folder, version.stage, kVersionsKept);
  return out;
}

void Publisher::visit_whole(const Transformer& model, const Take& take) {
  take(model.parameters());
}

Publisher::Published Publisher::publish(uint32_t stage,
                                        int64_t lineage,
                                        int64_t step,
                                        const Transformer& policy,
                                        const Companion& companion,
                                        const Visit& visit) {
  const auto begin = std::chrono::steady_clock::now();
  Published out;
  out.publication =
      write(folder_, {.stage = stage, .lineage = lineage, .step = step}, policy, visit);
  bool there = false;
  if (companion.model) {
    there = companion_ && companion_->version.stage == stage &&
            companion_->version.step == companion.step && companion.step == 0;
    if (!there) {
      companion_ = write(folder_ / "companion",
                         {.stage = stage, .lineage = lineage, .step = companion.step},
                         *companion.model,
                         visit);
    } else if (server_) {
      server_->keep(companion_->version.digest);
    }
  }
  if (caster_) broadcast(out, companion.model && !there);
  if (companion.model) out.publication.companions = {*companion_};
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return out;
}

/// The finished files, so that training and whoever misses a broadcast do not depend on it.
void Publisher::broadcast(Published& made, bool with_companion) {
  std::vector<Publication> files;
  if (with_companion) files.push_back(*companion_);
  files.push_back(made.publication);
  const WeightCaster::Cast cast = caster_->cast(files);
  made.receivers = cast.receivers;
  const auto note = [&](Publication& file) {
    file.epoch = cast.number.epoch;
    file.broadcast = cast.number.number;
  };
  note(made.publication);
  if (with_companion) note(*companion_);
}

}  // namespace praetor
