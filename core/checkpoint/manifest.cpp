#include "core/checkpoint/manifest.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/sha256.h"
#include "core/base/text.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "praetor-checkpoint";
constexpr int64_t kVersion = 1;

Json body_of(const CheckpointManifest& manifest) {
  Json out;
  out["format"] = kFormat;
  out["version"] = kVersion;
  out["stage"] = manifest.stage;
  out["step"] = manifest.step;
  out["world_size"] = manifest.world_size;
  out["metrics"] = Json::object();
  for (const auto& [name, value] : manifest.metrics) out["metrics"][name] = value;
  out["files"] = Json::array();
  for (const CheckpointFile& file : manifest.files) {
    out["files"].push_back({{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}});
  }
  return out;
}

}  // namespace

bool is_plain_name(std::string_view name) {
  if (name.empty() || name.size() > 200 || name[0] == '.') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

CheckpointFile describe_file(const fs::path& file) {
  // Read, not mapped: what was mapped counts as memory of this process.
  std::ifstream in(file, std::ios::binary);
  if (!in) throw MissingInput(file.string(), ": cannot be read");
  CheckpointFile out{.name = file.filename().string()};
  Sha256 digest;
  std::vector<char> piece(size_t{1} << 20);
  while (in.read(piece.data(), static_cast<std::streamsize>(piece.size())) || in.gcount() > 0) {
    digest.update(std::string_view(piece.data(), static_cast<size_t>(in.gcount())));
    out.bytes += in.gcount();
  }
  if (in.bad()) throw IoError("cannot read ", file.string());
  out.sha256 = digest.hex();
  return out;
}

std::string manifest_to_json(const CheckpointManifest& manifest) {
  Json out = body_of(manifest);
  out["sha256"] = sha256_hex(out.dump());
  return out.dump(2) + "\n";
}

CheckpointManifest manifest_from_json(std::string_view text, const fs::path& file) {
  const auto refuse = [&](const auto&... what) {
    throw CheckpointError(file.string(), ": ", what...);
  };
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) refuse("not JSON: the file is torn or was edited");
  CheckpointManifest out;
  try {
    if (!json.contains("format") || json.at("format") != kFormat) {
      refuse("not the manifest of a Praetor checkpoint");
    }
    if (json.at("version").get<int64_t>() != kVersion) {
      refuse("version ", json.at("version").dump(), ", this program reads version ", kVersion);
    }
    const auto digest = json.at("sha256").get<std::string>();
    json.erase("sha256");
    if (sha256_hex(json.dump()) != digest) refuse("was edited: its SHA-256 does not match");
    out.stage = json.at("stage").get<std::string>();
    out.step = json.at("step").get<int64_t>();
    out.world_size = json.at("world_size").get<int32_t>();
    for (const auto& item : json.at("metrics").items()) {
      // A metric that is not finite is null in JSON, and no better than absent.
      if (item.value().is_number()) out.metrics[item.key()] = item.value().get<double>();
    }
    for (const auto& one : json.at("files")) {
      CheckpointFile entry{one.at("name").get<std::string>(),
                           one.at("bytes").get<int64_t>(),
                           one.at("sha256").get<std::string>()};
      if (!is_plain_name(entry.name))
        refuse("names a file outside its folder: ", printable(entry.name));
      out.files.push_back(std::move(entry));
    }
  } catch (const Json::exception& failure) {
    refuse("not a whole manifest: ", failure.what());
  }
  if (out.world_size < 1 || out.world_size > 1 << 20) refuse("world_size ", out.world_size);
  return out;
}

}  // namespace praetor
