# The same text that Pulumi sends, of the very same files. ncdemo/infra/cloud_init.py says why it is as it is.

locals {
  files   = "${path.module}/../../../ncdemo/infra/vm_files"
  folder  = "/usr/local/lib/ncdemo"
  scripts = ["first-boot", "scratch", "registry-login", "run-job", "idle"]
  units   = ["ncdemo-scratch.service", "ncdemo-job@.service", "ncdemo-idle.service", "ncdemo-idle.timer"]

  settings = concat(
    ["NCDEMO_IDLE_MINUTES=${var.vm.idle_minutes}", "NCDEMO_CLIENT_ID=${var.identity.client_id}"],
    var.files_account == null ? [] : [
      "NCDEMO_FILES=${coalesce(var.files_account, "none")}.file.core.windows.net:/${coalesce(var.files_account, "none")}/files",
      "NCDEMO_FILES_DIR=/files",
    ],
  )
  setup = startswith(var.vm.setup, "#!") ? var.vm.setup : "#!/bin/sh\nset -eu\n${replace(var.vm.setup, "/\\s+$/", "")}\n"

  # Path -> permissions and text, in the order of writing.
  written = concat(
    [{ path = "/etc/ncdemo/vm.env", mode = "", text = "${join("\n", local.settings)}\n" }],
    [for name in local.scripts : { path = "${local.folder}/${name}", mode = "0755", text = file("${local.files}/${name}") }],
    [for text in [local.setup] : { path = "${local.folder}/setup", mode = "0755", text = text } if var.vm.setup != ""],
    [for name in local.units : { path = "/etc/systemd/system/${name}", mode = "", text = file("${local.files}/${name}") }],
  )
  cloud_init = join("", concat(
    ["#cloud-config\nwrite_files:\n"],
    [for one in local.written : join("", [
      "- path: ${one.path}\n",
      one.mode == "" ? "" : "  permissions: '${one.mode}'\n",
      # The user's own commands may hold what no block can.
      one.path == "${local.folder}/setup" ? "  content: ${jsonencode(one.text)}\n" : "  content: |\n",
      one.path == "${local.folder}/setup" ? "" : join("", [for line in split("\n", trimsuffix(one.text, "\n")) : line == "" ? "\n" : "    ${line}\n"]),
    ])],
    ["runcmd:\n- - ${local.folder}/first-boot\n"],
  ))
}
