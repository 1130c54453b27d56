// What upstream's processes send and expect, as field number, type and name. Written from their description and not from our
// .proto files, which these tables are there to check. Fields from 1000 on are ours.

/** All messages of package ptypes. */
export const MESSAGES: Readonly<Record<string, string>> = {
  SyncFileInfo: '1:string from_file_name 2:string to_file_name 3:int64 actual_size',

  VolumeHandOverRequest: '1000:string socket',
  VolumeRestoreRequest: '1000:string backup 1001:map<string,string> credential 1002:int32 concurrent_limit 1003:bool replace',
  VolumeRestoreStatusResponse:
    '1000:string state 1001:string backup 1002:string error 1003:bool incremental 1004:string last_restored 1005:bool usable ' +
    '1006:repeated ReplicaRestore replicas',
  ReplicaRestore:
    '1000:string address 1001:string state 1002:string error 1003:int32 progress 1004:int64 blocks 1005:int64 total_blocks ' +
    '1006:int64 volume_bytes 1007:int64 object_bytes',
  VolumeScrubStatusResponse:
    '1000:string state 1001:int32 progress 1002:string error 1003:repeated ScrubFinding findings 1004:int64 found 1005:int64 healed ' +
    '1006:int64 layers 1007:int64 read_repairs',
  ScrubFinding: '1000:string layer 1001:int64 offset 1002:int64 length 1003:string replica 1004:bool healed 1005:string reason',
  LayerDigestsRequest: '1000:string layer 1001:int64 first 1002:int32 count',
  LayerDigestsResponse: '1000:int64 size 1001:bytes digests 1002:bytes states',
  LayerBlocksRequest: '1000:string layer 1001:int64 region',
  LayerBlocksResponse: '1000:bytes flags 1001:bytes digests',
  LayerReadRequest: '1000:string layer 1001:int64 offset 1002:int32 length',
  LayerReadResponse: '1000:bytes data',
  LayerHealRequest: '1000:string layer 1001:int64 offset 1002:bytes data 1003:bytes expected',
  LayerHealBlocksRequest: '1000:string layer 1001:int64 region 1002:bytes which 1003:bytes data 1004:bytes expected 1005:bytes digests',
  LayerHealBlocksResponse: '1000:bytes outcomes 1001:repeated string reasons',
  LayerVerifyRequest: '1000:string layer',
  LayerVerifyResponse: '1000:bool recorded 1001:bool matches',
  VolumeStartRequest: '1:repeated string replicaAddresses 2:int64 size 3:int64 currentSize',
  VolumeSnapshotRequest: '1:string name 2:map<string,string> labels 3:bool freezeFilesystem',
  VolumeSnapshotResponse: '1:string name',
  VolumeRevertRequest: '1:string name',
  VolumeExpandRequest: '1:int64 size',
  VolumeFrontendStartRequest: '1:string frontend',
  VolumeUnmapMarkSnapChainRemovedSetRequest: '1:bool enabled',
  VolumeSnapshotMaxCountSetRequest: '1:int32 count',
  VolumeSnapshotMaxSizeSetRequest: '1:int64 size',
  VolumeIORequest: '1:string type 2:string data 3:int64 offset 4:int64 length',
  VolumeIOResponse: '1:bytes data 2:int64 size',
  VolumePrepareRestoreRequest: '1:string lastRestored',
  VolumeFinishRestoreRequest: '1:string currentRestored',
  ReplicaListResponse: '1:repeated ControllerReplica replicas',
  ControllerReplicaCreateRequest: '1:string address 2:bool snapshot_required 3:enum mode',
  ReplicaPrepareRebuildResponse: '1:ControllerReplica replica 2:repeated SyncFileInfo sync_file_info_list',
  ReplicaRebuildConcurrentSyncLimitSetRequest: '1:int32 limit',
  ReplicaRebuildConcurrentSyncLimitGetResponse: '1:int32 limit',
  JournalListRequest: '1:int64 limit',
  VersionDetailGetResponse: '1:VersionOutput version',
  MetricsGetResponse: '1:Metrics metrics',
  Volume:
    '1:string name 2:int64 size 3:int32 replicaCount 4:string endpoint 5:string frontend 6:string frontendState 7:bool isExpanding ' +
    '8:string last_expansion_error 9:string last_expansion_failed_at 10:bool unmap_mark_snap_chain_removed 11:int32 snapshot_max_count ' +
    '12:int64 snapshot_max_size 1000:string device_notice',
  ReplicaAddress: '1:string address 2:string instanceName',
  ControllerReplica: '1:ReplicaAddress address 2:enum mode',
  VersionOutput:
    '1:string version 2:string gitCommit 3:string buildDate 4:int64 cliAPIVersion 5:int64 cliAPIMinVersion 6:int64 controllerAPIVersion ' +
    '7:int64 controllerAPIMinVersion 8:int64 dataFormatVersion 9:int64 dataFormatMinVersion',
  Metrics:
    '1:uint64 readThroughput 2:uint64 writeThroughput 3:uint64 readLatency 4:uint64 writeLatency 5:uint64 readIOPS 6:uint64 writeIOPS',

  ReplicaResponse: '1:Replica replica',
  ReplicaCreateRequest: '1:string size',
  ReplicaOpenRequest: '1:bool is_upgrade 2:int64 expected_backend_size 1000:repeated string features 1001:string session',
  ReplicaRevertRequest: '1:string name 2:string created',
  ReplicaSnapshotRequest: '1:string name 2:bool user_created 3:string created 4:map<string,string> labels 1000:int64 grow_to',
  ReplicaExpandRequest: '1:int64 size',
  DiskRemoveRequest: '1:string name 2:bool force',
  DiskReplaceRequest: '1:string target 2:string source',
  DiskPrepareRemoveRequest: '1:string name',
  DiskPrepareRemoveResponse: '1:repeated PrepareRemoveAction operations',
  DiskMarkAsRemovedRequest: '1:string name',
  RebuildingSetRequest: '1:bool rebuilding',
  RevisionCounterSetRequest: '1:int64 counter',
  UnmapMarkDiskChainRemovedSetRequest: '1:bool enabled',
  SnapshotMaxCountSetRequest: '1:int32 count',
  SnapshotMaxSizeSetRequest: '1:int64 size',
  Replica:
    '1:bool dirty 2:bool rebuilding 3:string head 4:string parent 5:string size 6:int64 sector_size 7:string backing_file 8:string state ' +
    '9:repeated string chain 10:map<string,DiskInfo> disks 11:int32 remain_snapshots 12:int64 revision_counter 13:int64 last_modify_time ' +
    '14:int64 head_file_size 15:bool revision_counter_disabled 16:bool unmap_mark_disk_chain_removed 17:int32 snapshot_count_usage ' +
    '18:int64 snapshot_size_usage 19:int32 snapshot_count_total 1000:repeated string features 1001:string replica_id 1002:Membership membership ' +
    '1003:RestoredBackup restored 1004:repeated string unwritten_layers',
  RestoredBackup: '1000:string begun 1001:bool running 1002:string backup 1003:string layer',
  Membership: '1:int64 generation 2:repeated string members 3:repeated string lineage',
  DiskInfo:
    '1:string name 2:string parent 3:map<string,bool> children 4:bool removed 5:bool user_created 6:string created 7:string size ' +
    '8:map<string,string> labels 1000:int64 length_bytes',
  PrepareRemoveAction: '1:string action 2:string source 3:string target',

  FileRemoveRequest: '1:string file_name',
  FileRenameRequest: '1:string old_file_name 2:string new_file_name',
  FileSendRequest: '1:string from_file_name 2:string host 3:int32 port 4:bool fast_sync 5:int32 file_sync_http_client_timeout',
  FilesSyncRequest:
    '1:string from_address 2:string to_host 3:repeated SyncFileInfo sync_file_info_list 4:bool fast_sync ' +
    '5:int32 file_sync_http_client_timeout 6:int64 grpc_timeout_seconds 7:FileLocalSync local_sync 8:map<string,bool> from_address_map',
  FileLocalSync: '1:string source_path 2:string target_path',
  SnapshotCloneRequest:
    '1:string from_address 2:string to_host 3:string snapshot_file_name 4:bool export_backing_image_if_exist ' +
    '5:int32 file_sync_http_client_timeout 6:string from_volume_name',
  VolumeExportRequest:
    '1:string snapshot_file_name 2:string host 3:int32 port 4:bool export_backing_image_if_exist 5:int32 file_sync_http_client_timeout',
  ReceiverLaunchRequest: '1:string to_file_name',
  ReceiverLaunchResponse: '1:int32 port',
  BackupCreateRequest:
    '1:string snapshot_file_name 2:string backup_target 3:string volume_name 4:repeated string labels 5:map<string,string> credential ' +
    '6:string backing_image_name 7:string backing_image_checksum 8:string backup_name 9:string compression_method ' +
    '10:int32 concurrent_limit 11:string storage_class_name 12:map<string,string> parameters 1000:bool exclusive',
  BackupCreateResponse: '1:string backup 2:bool is_incremental',
  BackupRemoveRequest: '1:string backup',
  BackupRestoreRequest: '1:string backup 2:string snapshot_disk_name 3:map<string,string> credential 4:int32 concurrent_limit ' +
    '1000:bool hold 1001:string base_backup 1002:string base_layer',
  BackupRestoreFinishRequest: '1000:string session 1001:string layer',
  BackupStatusRequest: '1:string backup',
  BackupStatusResponse:
    '1:int32 progress 2:string backup_url 3:string error 4:string snapshot_name 5:string state ' +
    '1000:int64 blocks 1001:int64 total_blocks 1002:int64 volume_bytes 1003:int64 new_bytes',
  RestoreStatusResponse:
    '1:bool is_restoring 2:string last_restored 3:int32 progress 4:string error 5:string dest_file_name 6:string state 7:string backup_url ' +
    '8:string current_restoring_backup 1000:bool ready 1001:bool incremental 1002:int64 blocks 1003:int64 total_blocks ' +
    '1004:int64 volume_bytes 1005:int64 object_bytes',
  SnapshotPurgeStatusResponse: '1:bool is_purging 2:string error 3:int32 progress 4:string state',
  ReplicaRebuildStatusResponse:
    '1:bool is_rebuilding 2:string error 3:int32 progress 4:string state 5:string from_replica_address ' +
    '6:repeated string from_replica_address_list',
  SnapshotCloneStatusResponse:
    '1:bool is_cloning 2:string error 3:int32 progress 4:string state 5:string from_replica_address 6:string snapshot_name',
  SnapshotHashRequest: '1:string snapshot_name 2:bool rehash',
  SnapshotHashStatusRequest: '1:string snapshot_name',
  SnapshotHashStatusResponse: '1:string state 2:string checksum 3:string error 4:bool silently_corrupted',
  SnapshotHashCancelRequest: '1:string snapshot_name',
  SnapshotHashLockStateResponse: '1:bool is_locked',
}

/** Method, request, response. */
export const METHODS: Readonly<Record<string, readonly string[]>> = {
  ControllerService: [
    'VolumeGet Empty Volume',
    'VolumeStart VolumeStartRequest Volume',
    'VolumeShutdown Empty Volume',
    'VolumeSnapshot VolumeSnapshotRequest VolumeSnapshotResponse',
    'VolumeRevert VolumeRevertRequest Volume',
    'VolumeExpand VolumeExpandRequest Volume',
    'VolumeFrontendStart VolumeFrontendStartRequest Volume',
    'VolumeFrontendShutdown Empty Volume',
    'VolumeUnmapMarkSnapChainRemovedSet VolumeUnmapMarkSnapChainRemovedSetRequest Volume',
    'VolumeSnapshotMaxCountSet VolumeSnapshotMaxCountSetRequest Volume',
    'VolumeSnapshotMaxSizeSet VolumeSnapshotMaxSizeSetRequest Volume',
    'VolumeIO VolumeIORequest VolumeIOResponse',
    'ReplicaList Empty ReplicaListResponse',
    'ReplicaGet ReplicaAddress ControllerReplica',
    'ControllerReplicaCreate ControllerReplicaCreateRequest ControllerReplica',
    'ReplicaDelete ReplicaAddress Empty',
    'ReplicaUpdate ControllerReplica ControllerReplica',
    'ReplicaPrepareRebuild ReplicaAddress ReplicaPrepareRebuildResponse',
    'ReplicaVerifyRebuild ReplicaAddress ControllerReplica',
    'ReplicaRebuildConcurrentSyncLimitSet ReplicaRebuildConcurrentSyncLimitSetRequest Empty',
    'ReplicaRebuildConcurrentSyncLimitGet Empty ReplicaRebuildConcurrentSyncLimitGetResponse',
    'JournalList JournalListRequest Empty',
    'VersionDetailGet Empty VersionDetailGetResponse',
    'MetricsGet Empty MetricsGetResponse',
  ],
  ReplicaService: [
    'ReplicaCreate ReplicaCreateRequest ReplicaResponse',
    'ReplicaDelete Empty Empty',
    'ReplicaGet Empty ReplicaResponse',
    'ReplicaOpen ReplicaOpenRequest ReplicaResponse',
    'ReplicaClose Empty ReplicaResponse',
    'ReplicaReload Empty ReplicaResponse',
    'ReplicaRevert ReplicaRevertRequest ReplicaResponse',
    'ReplicaSnapshot ReplicaSnapshotRequest ReplicaResponse',
    'ReplicaExpand ReplicaExpandRequest ReplicaResponse',
    'DiskRemove DiskRemoveRequest ReplicaResponse',
    'DiskReplace DiskReplaceRequest ReplicaResponse',
    'DiskPrepareRemove DiskPrepareRemoveRequest DiskPrepareRemoveResponse',
    'DiskMarkAsRemoved DiskMarkAsRemovedRequest ReplicaResponse',
    'RebuildingSet RebuildingSetRequest ReplicaResponse',
    'RevisionCounterSet RevisionCounterSetRequest ReplicaResponse',
    'UnmapMarkDiskChainRemovedSet UnmapMarkDiskChainRemovedSetRequest ReplicaResponse',
    'SnapshotMaxCountSet SnapshotMaxCountSetRequest ReplicaResponse',
    'SnapshotMaxSizeSet SnapshotMaxSizeSetRequest ReplicaResponse',
  ],
  SyncAgentService: [
    'FileRemove FileRemoveRequest Empty',
    'FileRename FileRenameRequest Empty',
    'FileSend FileSendRequest Empty',
    'FilesSync FilesSyncRequest Empty',
    'SnapshotClone SnapshotCloneRequest Empty',
    'VolumeExport VolumeExportRequest Empty',
    'ReceiverLaunch ReceiverLaunchRequest ReceiverLaunchResponse',
    'BackupCreate BackupCreateRequest BackupCreateResponse',
    'BackupRemove BackupRemoveRequest Empty',
    'BackupRestore BackupRestoreRequest Empty',
    'BackupStatus BackupStatusRequest BackupStatusResponse',
    'Reset Empty Empty',
    'RestoreStatus Empty RestoreStatusResponse',
    'SnapshotPurge Empty Empty',
    'SnapshotPurgeStatus Empty SnapshotPurgeStatusResponse',
    'ReplicaRebuildStatus Empty ReplicaRebuildStatusResponse',
    'SnapshotCloneStatus Empty SnapshotCloneStatusResponse',
    'SnapshotHash SnapshotHashRequest Empty',
    'SnapshotHashStatus SnapshotHashStatusRequest SnapshotHashStatusResponse',
    'SnapshotHashCancel SnapshotHashCancelRequest Empty',
    'SnapshotHashLockState Empty SnapshotHashLockStateResponse',
  ],
}
