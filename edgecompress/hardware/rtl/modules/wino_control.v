// The loops of a convolution: passes > lo > deep > tr > tc, and fo or CHANNELS innermost. A tile is
// fed channel by channel while the one before it is held; both take as many clocks as the longer.
module wino_control #(
    parameter OMEGA = 4,
    parameter CHANNELS = 2,
    parameter ROWS = 2,
    parameter COLUMNS = 2,
    parameter IMAGES = 1,
    parameter DRAIN_CLOCKS = 8
) (
    input  wire        clock,
    input  wire        reset,
    input  wire        start,
    input  wire        bypass,
@DESCRIPTOR_PORTS
    output wire        busy,
    // One channel of a tile for every column.
    output wire        feed_valid,
    output reg  [15:0] feed_address,
    output wire [15:0] feed_row,
    output wire [15:0] feed_column,
    // One weight word for every row.
    output wire        issue_valid,
    output wire        issue_swap,
    output reg         issue_first,
    output wire [15:0] issue_kernel,
    output wire [15:0] issue_word,
    // One result.
    output wire        store_valid,
    output wire [15:0] store_word,
    output reg  [15:0] store_row,
    output wire [15:0] store_column,
    output wire [15:0] store_slot
);
    localparam IDLE = 2'd0, RUN = 2'd1, DRAIN = 2'd2, STORE = 2'd3;
    reg [1:0] state;
    assign busy = state != IDLE;
    wire [15:0] side = bypass ? OMEGA[15:0] : OMEGA[15:0] - 16'd2;
    wire [15:0] span = bypass ? COLUMNS[15:0]*OMEGA[15:0] : COLUMNS[15:0]*(OMEGA[15:0] - 16'd2);

    // Tiles that are fed and held.
    reg         fed, held;
    reg  [15:0] period;
    wire        feeding = period < CHANNELS[15:0];
    wire [15:0] length = held && fo > CHANNELS[15:0] ? fo : CHANNELS[15:0];
    wire        step_end = period == length - 16'd1;

    reg [15:0] pass_down_i, pass_across_i, lo_i, deep_i, tr_i, tc_i;
    wire tc_end     = tc_i == tc - 16'd1;
    wire tr_end     = tc_end && tr_i == tr - 16'd1;
    wire deep_end   = tr_end && deep_i == deep - 16'd1;
    wire lo_end     = deep_end && lo_i == lo - 16'd1;
    wire across_end = lo_end && pass_across_i == passes_across - 16'd1;
    wire down_end   = across_end && pass_down_i == passes_down - 16'd1;

    // Where the tile that is fed lies, and where its weights and results are.
    reg  [15:0] channel_base, pass_row, pass_column, tile_row, tile_column;
    reg  [15:0] kernel_base, lo_base, word_base, held_kernel, held_word;
    wire [15:0] next_channel = feeding ? feed_address + channel_words : feed_address;

    assign feed_valid   = state == RUN && fed && feeding;
    assign feed_row     = pass_row + tile_row;
    assign feed_column  = pass_column + tile_column;
    assign issue_valid  = state == RUN && held && period < fo;
    assign issue_swap   = issue_valid && period == 16'd0;
    assign issue_kernel = held_kernel + period;
    assign issue_word   = held_word + period;

    always @(posedge clock) begin
        if (state != RUN) begin
            fed <= 1'b1;
            held <= 1'b0;
            period <= 16'd0;
            {pass_down_i, pass_across_i, lo_i, deep_i, tr_i, tc_i} <= {6{16'd0}};
            {feed_address, channel_base, pass_row, pass_column} <= {4{16'd0}};
            {tile_row, tile_column} <= {2{16'd0}};
            {kernel_base, lo_base, word_base} <= {3{16'd0}};
        end else begin
            period <= step_end ? 16'd0 : period + 16'd1;
            if (fed) feed_address <= next_channel;
            if (step_end) begin
                held        <= fed;
                held_kernel <= kernel_base;
                held_word   <= word_base;
                issue_first <= pass_down_i == 16'd0 && pass_across_i == 16'd0 && deep_i == 16'd0;
                if (down_end) fed <= 1'b0;

                tc_i <= tc_end ? 16'd0 : tc_i + 16'd1;
                tile_column <= tc_end ? 16'd0 : tile_column + span;
                if (tc_end) tr_i <= tr_end ? 16'd0 : tr_i + 16'd1;
                if (tc_end) tile_row <= tr_end ? 16'd0 : tile_row + side;
                if (tr_end) deep_i <= deep_end ? 16'd0 : deep_i + 16'd1;
                if (tr_end) channel_base <= deep_end ? 16'd0 : next_channel;
                if (tr_end) kernel_base <= kernel_base + fo;
                if (deep_end) lo_i <= lo_end ? 16'd0 : lo_i + 16'd1;
                if (deep_end) lo_base <= lo_end ? 16'd0 : lo_base + plane_words;
                if (lo_end) pass_across_i <= across_end ? 16'd0 : pass_across_i + 16'd1;
                if (lo_end) pass_column <= across_end ? 16'd0 : pass_column + step_across;
                if (across_end) pass_down_i <= pass_down_i + 16'd1;
                if (across_end) pass_row <= pass_row + step_down;

                feed_address <= !tr_end ? channel_base : deep_end ? 16'd0 : next_channel;
                word_base <= !tr_end ? word_base + fo
                                      : !deep_end ? lo_base
                                      : lo_end ? 16'd0 : lo_base + plane_words;
            end
        end
    end

    // Results in the order of memory: image, channel, row, column.
    reg  [15:0] image_i, channel_i, fo_i, y_i, x_i, plane_base, row_base, column_base;
    reg  [15:0] down, across, place;
    wire x_end     = x_i == out_width - 16'd1;
    wire y_end     = x_end && y_i == out_height - 16'd1;
    wire row_end   = y_end && store_row == ROWS[15:0] - 16'd1;
    wire fo_end    = row_end && fo_i == fo - 16'd1;
    wire image_end = y_end && channel_i == out_channels - 16'd1;
    wire store_end = image_end && image_i == IMAGES[15:0] - 16'd1;
    wire [15:0] next_down   = down + stride_down;
    wire [15:0] next_across = across + stride_across;
    wire        next_tile   = next_across >= side;
    wire        next_word   = next_tile && place == COLUMNS[15:0] - 16'd1;

    assign store_valid  = state == STORE;
    assign store_word   = plane_base + row_base + column_base + fo_i;
    assign store_column = image_i*COLUMNS[15:0] + place;
    assign store_slot   = down*OMEGA[15:0] + across;

    always @(posedge clock) begin
        if (state != STORE) begin
            {image_i, channel_i, store_row, fo_i, y_i, x_i} <= {6{16'd0}};
            {plane_base, row_base, column_base, down, across, place} <= {6{16'd0}};
        end else begin
            x_i <= x_end ? 16'd0 : x_i + 16'd1;
            across <= x_end ? 16'd0 : next_tile ? next_across - side : next_across;
            if (x_end) place <= 16'd0;
            else if (next_tile) place <= next_word ? 16'd0 : place + 16'd1;
            if (x_end) column_base <= 16'd0;
            else if (next_word) column_base <= column_base + fo;

            if (x_end) y_i <= y_end ? 16'd0 : y_i + 16'd1;
            if (x_end) down <= y_end ? 16'd0 : next_down >= side ? next_down - side : next_down;
            if (y_end) row_base <= 16'd0;
            else if (x_end && next_down >= side) row_base <= row_base + row_words;

            if (y_end) channel_i <= image_end ? 16'd0 : channel_i + 16'd1;
            if (y_end) store_row <= row_end || image_end ? 16'd0 : store_row + 16'd1;
            if (image_end) fo_i <= 16'd0;
            else if (row_end) fo_i <= fo_end ? 16'd0 : fo_i + 16'd1;
            if (image_end) plane_base <= 16'd0;
            else if (fo_end) plane_base <= plane_base + plane_words;
            if (image_end) image_i <= image_i + 16'd1;
        end
    end

    reg [15:0] drained;
    always @(posedge clock) begin
        drained <= state == DRAIN ? drained + 16'd1 : 16'd0;
        if (reset) state <= IDLE;
        else case (state)
            IDLE:    if (start) state <= RUN;
            RUN:     if (step_end && !fed) state <= DRAIN;
            DRAIN:   if (drained == DRAIN_CLOCKS[15:0] - 16'd1) state <= STORE;
            default: if (store_end) state <= IDLE;
        endcase
    end
endmodule
